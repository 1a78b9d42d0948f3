"""Rules of a route chosen by their name or by what they match."""

from __future__ import annotations

from typing import Any

import pytest

from inference_plugin.config import MatchConfig
from inference_plugin.errors import ConfigError
from inference_plugin.rule_choice import chosen_rule

CHAT: dict[str, Any] = {"name": "chat", "matches": [{"path": {"type": "Exact", "value": "/chat"}}]}
COMPLETIONS: dict[str, Any] = {
    "matches": [
        {"path": {"type": "PathPrefix", "value": "/v1/completions"}},
        {
            "path": {"type": "PathPrefix", "value": "/v2/completions"},
            "method": "POST",
            "headers": [{"name": "X-Tier", "value": "gold"}],
        },
    ]
}
EVERYTHING: dict[str, Any] = {"backendRefs": []}
INFER: dict[str, Any] = {"matches": [{"method": {"service": "Infer", "method": "ModelInfer"}}]}
STREAM: dict[str, Any] = {"matches": [{"method": {"service": "Infer", "method": "ModelStream"}}]}
HTTP = [CHAT, COMPLETIONS, EVERYTHING]
GRPC = [INFER, STREAM]


@pytest.mark.parametrize(
    ("rules", "choice", "index"),
    [
        pytest.param(HTTP, "chat", 0, id="name"),
        pytest.param(HTTP, {"path": "/chat"}, 0, id="path"),
        pytest.param(HTTP, {"path": "/v1/completions"}, 1, id="first-of-several-matches"),
        pytest.param(HTTP, {"path": "/v2/completions"}, 1, id="second-of-several-matches"),
        pytest.param(HTTP, {"method": "POST"}, 1, id="method"),
        pytest.param(HTTP, {"headers": {"x-tier": "gold"}}, 1, id="header-in-any-case"),
        pytest.param(HTTP, {"pathType": "Exact"}, 0, id="type-of-the-path"),
        pytest.param(HTTP, {"path": "/"}, 2, id="a-rule-that-says-nothing-matches-everything"),
        pytest.param(GRPC, {"method": "ModelStream"}, 1, id="grpc-method"),
        pytest.param(GRPC, {"service": "Infer", "method": "ModelInfer"}, 0, id="grpc-service"),
    ],
)
def test_a_rule_is_found(
    rules: list[dict[str, Any]], choice: str | dict[str, Any], index: int
) -> None:
    wanted = choice if isinstance(choice, str) else MatchConfig.model_validate(choice)
    assert chosen_rule("HTTPRoute llm/chat", rules, wanted) == index


@pytest.mark.parametrize(
    ("rules", "choice", "message"),
    [
        pytest.param(HTTP, "main", "has no rule 'main' (found 'chat')", id="no-such-name"),
        pytest.param(GRPC, "main", "(found no named rule)", id="no-names-at-all"),
        pytest.param(
            HTTP,
            {"path": "/v3"},
            'no rule that matches {"path": "/v3"} (found #0 /chat; #1 /v1/completions, '
            "POST /v2/completions x-tier=gold; #2 /)",
            id="no-such-match",
        ),
        pytest.param(GRPC, {"service": "Infer"}, "rules #0 and #1 both match", id="two-fit"),
        pytest.param([], {"path": "/"}, "(found no rule)", id="no-rules"),
    ],
)
def test_what_is_not_clear_is_refused(
    rules: list[dict[str, Any]], choice: str | dict[str, Any], message: str
) -> None:
    wanted = choice if isinstance(choice, str) else MatchConfig.model_validate(choice)
    with pytest.raises(ConfigError) as refused:
        chosen_rule("HTTPRoute llm/chat", rules, wanted)
    assert message in str(refused.value)
