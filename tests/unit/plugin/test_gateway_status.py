from __future__ import annotations

from typing import Any

import pytest

from inference_plugin.gateway_status import unaccepted


def conditions(generation: int, **status: str) -> list[dict[str, Any]]:
    found = {"Accepted": "True", "ResolvedRefs": "True"} | status
    return [
        {"type": kind, "status": value, "observedGeneration": generation, "message": f"{kind} text"}
        for kind, value in found.items()
    ]


def parent(
    name: str, found: list[dict[str, Any]], controller: str = "one", **ref: Any
) -> dict[str, Any]:
    return {
        "parentRef": {"name": name} | ref,
        "controllerName": controller,
        "conditions": found,
    }


def route(*parents: dict[str, Any], refs: tuple[dict[str, Any], ...] = ({"name": "gw"},)) -> Any:
    return {
        "metadata": {"namespace": "llm", "name": "chat", "generation": 3},
        "spec": {"parentRefs": list(refs)},
        "status": {"parents": list(parents)},
    }


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        pytest.param(route(parent("gw", conditions(3))), "", id="accepted"),
        pytest.param(route(), "Gateway gw has not reported on it", id="no-report"),
        pytest.param(
            route(parent("gw", conditions(2))),
            "Gateway gw: Accepted is of generation 2, the route is at 3",
            id="older-generation",
        ),
        pytest.param(
            route(parent("gw", conditions(3, ResolvedRefs="False"))),
            "Gateway gw: ResolvedRefs is False: ResolvedRefs text",
            id="refs-not-resolved",
        ),
        pytest.param(
            route(parent("gw", conditions(3, PartiallyInvalid="True"))),
            "Gateway gw: PartiallyInvalid is True: PartiallyInvalid text",
            id="partially-invalid",
        ),
        pytest.param(
            route(parent("gw", conditions(3)[:1])),
            "Gateway gw: no condition ResolvedRefs",
            id="half-a-report",
        ),
        pytest.param(
            route(parent("gw", conditions(1), controller="gone"), parent("gw", conditions(3))),
            "",
            id="a-controller-that-is-gone-left-its-entry",
        ),
        pytest.param(
            route(parent("gw", conditions(3), group="gateway.networking.k8s.io", namespace="llm")),
            "",
            id="defaults-written-out",
        ),
        pytest.param(
            route(
                parent("gw", conditions(3), sectionName="a"),
                refs=({"name": "gw", "sectionName": "a"}, {"name": "gw", "sectionName": "b"}),
            ),
            "Gateway gw has not reported on it",
            id="one-of-two-listeners",
        ),
        pytest.param(route(refs=()), "it has no parentRefs", id="no-parent"),
    ],
)
def test_what_is_missing_until_every_parent_accepted(found: Any, missing: str) -> None:
    assert unaccepted(found) == missing
