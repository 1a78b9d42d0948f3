"""The gateway controller on a real API server, with real pickers and model servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

from inference_common.kube import DEPLOYMENT, GATEWAY, HTTPROUTE, INFERENCEPOOL, PatchKind
from support import manifests as m
from support.gateway.bootstrap import admin_url
from support.gateway.snapshot import CONTROLLER_NAME
from support.traffic import Traffic

if TYPE_CHECKING:
    from pathlib import Path

    from support.scenario import Scenario


async def without_traffic(scenario: Scenario, *refs: dict[str, Any]) -> None:
    """Pools a and b of one no-op Deployment, with a picker that is a no-op too."""
    await scenario.apply(
        m.gateway(),
        m.deployment("app", m.noop(), labels={"app": "app"}),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        *(m.pool(name, {"app": "app"}, picker="picker") for name in ("a", "b")),
        m.route("route", *refs),
    )


async def set_weights(scenario: Scenario, *weights: int) -> None:
    """Write the weights and wait for the status that says Envoy has them."""
    change = [
        {"op": "replace", "path": f"/spec/rules/0/backendRefs/{index}/weight", "value": weight}
        for index, weight in enumerate(weights)
    ]
    await scenario.kube.patch(HTTPROUTE, "route", change, scenario.namespace)
    await scenario.until_accepted("route")


async def weights_in_envoy(state_dir: Path, namespace: str) -> list[int]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{admin_url(state_dir)}/config_dump", params={"resource": "dynamic_route_configs"}
        ) as answer,
    ):
        configs = (await answer.json(content_type=None))["configs"]
    name = f"{namespace}/{m.GATEWAY}/{m.LISTENER_PORT}"
    (found,) = [each["route_config"] for each in configs if each["route_config"]["name"] == name]
    route = found["virtual_hosts"][0]["routes"][0]["route"]
    return [cluster["weight"] for cluster in route["weighted_clusters"]["clusters"]]


def served(found: dict[str, Any] | None) -> bool:
    """Whether a gateway or pool has a status, all of it true."""
    status = (found or {}).get("status", {})
    conditions = [
        condition
        for entry in (status, *status.get("parents", ()))
        for condition in entry.get("conditions", ())
    ]
    return bool(conditions) and all(condition["status"] == "True" for condition in conditions)


async def test_an_accepted_route_is_in_envoy(scenario: Scenario) -> None:
    await without_traffic(scenario, m.pool_ref("a", 100), m.pool_ref("b", 0))
    await scenario.until_accepted("route")
    for canary in (10, 50, 60, 90):
        await set_weights(scenario, 100 - canary, canary)
        found = await weights_in_envoy(scenario.cluster.state_dir, scenario.namespace)
        assert found == [100 - canary, canary]


async def test_statuses_are_complete_and_then_left_alone(scenario: Scenario) -> None:
    await without_traffic(scenario, m.pool_ref("a", 1))
    await scenario.until_accepted("route")
    for resource, name in ((GATEWAY, m.GATEWAY), (INFERENCEPOOL, "a")):
        await scenario.until(resource, name, served)
    pool = await scenario.get(INFERENCEPOOL, "a")
    assert [entry["controllerName"] for entry in pool["status"]["parents"]] == [CONTROLLER_NAME]
    gateway = await scenario.get(GATEWAY, m.GATEWAY)
    assert [entry["type"] for entry in gateway["status"]["addresses"]] == ["IPAddress"]
    before = await scenario.get(HTTPROUTE, "route")
    # Something else of the namespace changes and is dealt with: the route is not written.
    await scenario.apply(m.route("other", m.pool_ref("b", 1)))
    await scenario.until_accepted("other")
    after = await scenario.get(HTTPROUTE, "route")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_a_missing_pool_is_told_and_found_when_it_comes(scenario: Scenario) -> None:
    await without_traffic(scenario, m.pool_ref("late", 1))

    def resolved(expected: tuple[str, str]) -> Any:
        return lambda found: any(
            (condition["status"], condition["reason"]) == expected
            for parent in (found or {}).get("status", {}).get("parents", ())
            for condition in parent["conditions"]
            if condition["type"] == "ResolvedRefs"
        )

    await scenario.until(HTTPROUTE, "route", resolved(("False", "BackendNotFound")))
    await scenario.apply(m.pool("late", {"app": "app"}, picker="picker"))
    await scenario.until(HTTPROUTE, "route", resolved(("True", "ResolvedRefs")))


async def test_pods_and_pickers_come_and_go_under_traffic_without_a_failure(
    scenario: Scenario,
) -> None:
    await scenario.apply(m.gateway(), *m.picker_rights())
    for name, replicas in (("a", 2), ("b", 1)):
        labels, container = {"version": name}, m.simulated_vllm(f"version-{name}")
        await scenario.apply(
            m.deployment(name, container, labels=labels, replicas=replicas),
            m.pool(name, labels, picker=f"picker-{name}"),
            *m.picker(f"picker-{name}", name),
        )
    await scenario.apply(m.route("route", m.pool_ref("a", 50), m.pool_ref("b", 50)))
    for name in ("a", "b", "picker-a", "picker-b"):
        await scenario.until_available(name)
    await scenario.until_accepted("route")
    address = await scenario.address()
    # The route was accepted before its pickers were available, and Envoy hears of them later.
    async with Traffic(address, model="mymodel", rate=10) as starting:
        for version in ("version-a", "version-b"):
            await starting.until_answered_by(version)
    async with Traffic(address, model="mymodel", rate=10) as traffic:
        window = await traffic.until_answers(100)
        low, high = window.interval("version-b", confidence=0.999999)
        assert low <= 0.5 <= high
        # All model servers of one version are replaced, then its picker.
        anew = {"spec": {"template": {"metadata": {"annotations": {"anew": "1"}}}}}
        for name in ("a", "picker-a"):
            written = await scenario.kube.patch(
                DEPLOYMENT, name, anew, scenario.namespace, kind=PatchKind.MERGE
            )
            await scenario.until(DEPLOYMENT, name, rolled_out(written["metadata"]["generation"]))
            await traffic.until_answers(20)
        await set_weights(scenario, 0, 100)
        window = await traffic.until_answers(20)
        assert window.shares() == {"version-b": 1.0}
    assert traffic.failures == []


def rolled_out(generation: int) -> Any:
    """Whether a Deployment has exactly the pods it wants, all of its newest template."""

    def check(found: dict[str, Any] | None) -> bool:
        status, spec = (found or {}).get("status", {}), (found or {}).get("spec", {})
        wanted = spec.get("replicas")
        counts = (status.get("replicas"), status.get("updatedReplicas"))
        return (
            status.get("observedGeneration", 0) >= generation
            and counts == (wanted, wanted)
            and status.get("availableReplicas") == wanted
        )

    return check
