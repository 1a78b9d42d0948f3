"""Which arms an AnalysisRun compares, by its settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference_analysis.argo.looking import arms_of
from inference_analysis.argo.runs import with_destinations
from inference_analysis.argo.settings import analysis_document
from inference_analysis.argo.subjects import Subject
from inference_analysis.arms import Arms
from inference_analysis.errors import InputError
from inference_analysis.picker_arms import PickerArms, PickerBy
from inference_analysis.series import Series

SUBJECT = Subject(
    namespace="llm",
    rollout="travel",
    rollout_uid="u1",
    run="run",
    run_uid="r1",
    created_s=0.0,
    measured=0,
    background=False,
    canary_hash="new",
    stable_hash="old",
    fraction=1.0,
)


def settings(**arms: Any) -> Any:
    return analysis_document({"prometheus": {"url": "http://p:9090"}, "arms": arms})


class ReplicaSets:
    """The one list that `with_destinations` asks for."""

    def __init__(self, **adapters: str) -> None:
        self._adapters = adapters

    async def list(self, _resource: Any, _namespace: str, selector: str) -> dict[str, Any]:
        pod_hash = selector.partition("=")[2]
        annotations = {}
        if self._adapters.get(pod_hash):
            annotations["inference-rollouts.io/destination"] = self._adapters[pod_hash]
        found = {
            "metadata": {
                "name": f"travel-{pod_hash}",
                "labels": {"rollouts-pod-template-hash": pod_hash},
                "ownerReferences": [{"controller": True, "uid": "u1"}],
            },
            "spec": {"template": {"metadata": {"annotations": annotations}}},
        }
        return {"items": [found]}


def test_pods_are_the_default() -> None:
    assert isinstance(arms_of(SUBJECT, settings()), Arms)


async def test_adapters_are_those_that_the_revisions_name() -> None:
    """The annotation of the pod template, which every ReplicaSet keeps: right for undo as well."""
    about = await with_destinations(ReplicaSets(new="travel-v2", old="travel-v1"), SUBJECT)  # type: ignore[arg-type]
    arms = arms_of(about, settings(by="adapters"))
    assert isinstance(arms, PickerArms)
    assert (arms.canary_adapter, arms.reference) == ("travel-v2", "travel-v1-control")
    plain = arms_of(about, settings(by="adapters", control=False))
    assert isinstance(plain, PickerArms)
    assert plain.reference == "travel-v1"
    assert set(plain.display) == {"ttft", "e2e"}


async def test_a_revision_that_names_no_adapter_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"stable's pod template \(old\) has no annotation"):
        await with_destinations(ReplicaSets(new="travel-v2"), SUBJECT)  # type: ignore[arg-type]


async def test_a_pool_is_named_by_itself_or_with_its_namespace() -> None:
    about = await with_destinations(ReplicaSets(new="travel-v2", old="travel-v1"), SUBJECT)  # type: ignore[arg-type]

    names = ("llm/chat", "other/chat", "llm/code")
    found = [
        Series(
            name="requests", labels={"pool": name}, times=np.array([0.0]), values=np.array([1.0])
        )
        for name in names
    ]

    def kept(pool: str) -> list[str]:
        arms = arms_of(about, settings(by="adapters", pool=pool))
        assert isinstance(arms, PickerArms)
        return [item.labels["pool"] for item in arms.of_pool(found)]

    assert kept("chat") == ["llm/chat"]
    assert kept("other/chat") == ["other/chat"]
    assert kept("") == list(names)


def test_versions_are_told_by_their_hashes() -> None:
    arms = arms_of(SUBJECT, settings(by="versions"))
    assert isinstance(arms, PickerArms)
    assert arms.by is PickerBy.VERSIONS
    assert arms.shared is None
