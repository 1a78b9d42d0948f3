from __future__ import annotations

from typing import Any

import pytest

from inference_common.names import PLUGIN_NAME
from inference_plugin.rollouts import belongs_on_stable, hashes_of, spec_of
from inference_plugin.shares import Hashes, Weighting, shares_by_hash


def rollout(*, dynamic: bool = False, weighted: str = "", **status: Any) -> Any:
    if weighted:
        status["canary"] = {"weights": {"canary": {"podTemplateHash": weighted}}}
    return {
        "metadata": {"namespace": "llm", "name": "chat", "uid": "u"},
        "spec": {"replicas": 4, "strategy": {"canary": {"dynamicStableScale": dynamic}}},
        "status": status,
    }


# argo-rollouts v1.10.2: rollout/trafficrouting.go, branches (a) to (f) of the weight.
@pytest.mark.parametrize(
    ("found", "available", "expected"),
    [
        pytest.param(rollout(), 0, None, id="before-the-first-deploy"),
        pytest.param(rollout(stableRS="h1", currentPodHash="h2"), 4, ("h1", "h2"), id="a-canary"),
        pytest.param(
            rollout(stableRS="h1", currentPodHash="h1", weighted="h2"),
            1,
            ("h1", "h1"),
            id="back-to-stable",
        ),
        pytest.param(
            rollout(dynamic=True, stableRS="h1", currentPodHash="h1", weighted="h2"),
            1,
            ("h1", "h2"),
            id="rolling-back-dynamically",
        ),
        pytest.param(
            rollout(dynamic=True, stableRS="h1", currentPodHash="h1", weighted="h2"),
            4,
            ("h1", "h1"),
            id="rolled-back-dynamically",
        ),
    ],
)
def test_the_pair_that_the_controller_means(
    found: Any, available: int, expected: tuple[str, str] | None
) -> None:
    hashes = hashes_of(found, lambda _: available)
    assert hashes == (expected and Hashes(stable=expected[0], canary=expected[1]))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(rollout(stableRS="h1", currentPodHash="h2"), False, id="canary"),
        pytest.param(rollout(stableRS="h1", currentPodHash="h2", abort=True), True, id="abort"),
        pytest.param(rollout(stableRS="h1", currentPodHash="h1"), True, id="promoted"),
        pytest.param(
            rollout(dynamic=True, stableRS="h1", currentPodHash="h2", abort=True),
            False,
            id="abort-with-dynamic-stable-scale-goes-as-fast-as-pods-appear",
        ),
        pytest.param(rollout(), False, id="new"),
    ],
)
def test_when_all_traffic_belongs_on_stable(found: Any, expected: bool) -> None:
    assert belongs_on_stable(found) is expected


def test_a_rollout_of_another_plugin_is_none_of_ours() -> None:
    other = rollout()
    other["spec"]["strategy"]["canary"]["trafficRouting"] = {"plugins": {"argoproj-labs/x": {}}}
    assert spec_of(other) is None


def test_the_configuration_is_read_from_the_rollout() -> None:
    ours = rollout()
    ours["spec"]["strategy"]["canary"] |= {
        "stableService": "s",
        "canaryService": "c",
        "trafficRouting": {"plugins": {PLUGIN_NAME: {"httpRoute": "r"}}, "maxTrafficWeight": 1000},
    }
    found = spec_of(ours)
    assert found is not None
    assert (found.stable_service, found.canary_service, found.max_weight) == ("s", "c", 1000)
    assert found.config == b'{"httpRoute": "r"}'


@pytest.mark.parametrize(
    ("pair", "desired", "maximum", "expected"),
    [
        pytest.param(("h1", "h2"), 10, 100, {"h1": 90, "h2": 10}, id="a-step"),
        pytest.param(("h1", "h1"), 0, 100, {"h1": 100}, id="promoted-gives-all-not-nothing"),
        pytest.param(("h1", "h2"), 25, 1000, {"h1": 975, "h2": 25}, id="max-traffic-weight"),
    ],
)
def test_shares_are_summed_by_revision(
    pair: tuple[str, str], desired: int, maximum: int, expected: dict[str, int]
) -> None:
    hashes = Hashes(stable=pair[0], canary=pair[1])
    weighting = Weighting(desired=desired, maximum=maximum)
    assert shares_by_hash(hashes, weighting) == expected
