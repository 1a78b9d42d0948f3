from __future__ import annotations

from typing import Any

import pytest

from inference_analysis.aliases import FAMILIES, families
from inference_analysis.arms import Arms, PodsBy
from inference_analysis.errors import InputError
from inference_analysis.observations import Arm

TTFT = FAMILIES[0]


def arms(**changes: str) -> Arms:
    fields: dict[str, Any] = {
        "namespace": "llm",
        "rollout": "chat",
        "canary_hash": "6d5f",
        "stable_hash": "9c1b",
    }
    by = PodsBy(changes.pop("by", "label"))
    return Arms(**(fields | changes), by=by)


def test_pods_are_told_by_the_label_of_the_revision() -> None:
    assert arms().selector(Arm.CANARY, TTFT) == (
        r'{__name__=~"(?:(?:kserve_)?vllm[:_](?:time_to_first_token_seconds))'
        r'(?:_bucket|_sum|_count)?",namespace="llm",rollouts_pod_template_hash="6d5f"}'
    )


def test_pods_are_told_by_name_without_taking_those_of_another_rollout() -> None:
    selector = arms(by="name").selector(Arm.STABLE, TTFT)
    assert r'pod=~"chat\\-9c1b\\-[a-z0-9]+"' in selector


def test_quotes_in_a_value_do_not_end_it() -> None:
    assert r'namespace="a\"} or vector(1)"' in arms(namespace='a"} or vector(1)').selector(
        Arm.CANARY, TTFT
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"canary_hash": ""}, "--canary-hash ''.*podTemplateHashValue", id="empty"),
        pytest.param({"canary_hash": "9c1b"}, "equals --stable-hash.*nothing to", id="equal"),
        pytest.param({"stable_hash": "{{args.x}}"}, "--stable-hash", id="unresolved-arg"),
        pytest.param({"namespace": ""}, "--namespace: empty", id="no-namespace"),
        pytest.param({"pod_label": "a-b"}, "not a Prometheus label name", id="label"),
    ],
)
def test_arms_that_are_none_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arms(**changes)


@pytest.mark.parametrize("text", ["ttft", "=x", "ttft=", "ttft=a b"])
def test_alias_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected METRIC=NAME"):
        families([text])
