"""The documentation's table for who comes from the gatewayAPI plugin, held to the code."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest

from inference_plugin.config import PATH, RouterConfig, parse_config
from inference_plugin.errors import ConfigError
from inference_plugin.gatewayapi_keys import REFUSED
from support.repository import ROOT

# Every field of the JSON there, by rollouts-plugin-trafficrouter-gatewayapi v0.15.0,
# pkg/plugin/types.go, with a value as its users write it; configMap is of the versions before 0.13.
THERE: Final[dict[str, Any]] = {
    "httpRoute": "chat",
    "httpRoutes[].name": "chat",
    "httpRoutes[].useHeaderRoutes": True,
    "grpcRoute": "chat",
    "grpcRoutes[].name": "chat",
    "grpcRoutes[].useHeaderRoutes": True,
    "namespace": "llm",
    "httpRouteSelector": {"matchLabels": {"app": "chat"}},
    "grpcRouteSelector": {"matchLabels": {"app": "chat"}},
    "tcpRoute": "chat",
    "tcpRoutes": [{"name": "chat"}],
    "tcpRouteSelector": {"matchLabels": {"app": "chat"}},
    "tlsRoute": "chat",
    "tlsRoutes": [{"name": "chat"}],
    "tlsRouteSelector": {"matchLabels": {"app": "chat"}},
    "disableInProgressLabel": True,
    "inProgressLabelKey": "in-progress",
    "inProgressLabelValue": "yes",
    "configMap": "argo-gatewayapi-configmap",
}


def table() -> dict[str, str]:
    """Key and verdict of each row."""
    text = (ROOT / "docs/plugin.md").read_text()
    [part] = re.findall(r"<!-- gatewayapi-keys.*?-->\n(.*?)<!-- /", text, re.DOTALL)
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \|", part, re.MULTILINE)
    return dict(rows)


def config(key: str, value: Any) -> bytes:
    """A configuration with this key, and a route where it names none itself."""
    found: dict[str, Any] = {}
    head, _, rest = key.partition("[].")
    found[head] = [{"name": "chat", rest: value}] if rest else value
    if not any(name in found for name in ("httpRoute", "httpRoutes", "grpcRoute", "grpcRoutes")):
        found["httpRoute"] = "chat"
    return json.dumps(found).encode()


def test_the_table_has_every_key_of_that_plugin() -> None:
    assert list(table()) == list(THERE)


@pytest.mark.parametrize(("key", "verdict"), table().items(), ids=list(table()))
def test_a_key_is_taken_or_refused_as_the_table_says(key: str, verdict: str) -> None:
    assert verdict in {"same", "true", "refused"}
    short = key.rpartition(".")[2]
    if verdict == "refused":
        with pytest.raises(ConfigError) as refused:
            parse_config(config(key, THERE[key]))
        assert str(refused.value).startswith(f"{PATH}.{key}: {REFUSED[key]}")
        return
    assert isinstance(parse_config(config(key, THERE[key])), RouterConfig)
    if verdict == "true":
        with pytest.raises(ConfigError) as refused:
            parse_config(config(key, False))
        assert REFUSED[short] in str(refused.value)


def test_nothing_is_refused_that_the_table_does_not_tell() -> None:
    assert {key.rpartition(".")[2] for key, verdict in table().items() if verdict != "same"} == set(
        REFUSED
    )


def test_the_documented_keys_are_the_keys_of_the_model() -> None:
    text = (ROOT / "docs/plugin.md").read_text()
    [part] = re.findall(r"^## Configuration\n(.*?)^A rule without", text, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| (`[^|]*`) \|", part, re.MULTILINE)
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert documented | {"disableInProgressLabel"} == set(RouterConfig.model_fields)
