"""Types are used in the version that the API server has, whatever version they were written for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from inference_common.kube import HTTPROUTE, Resource
from inference_plugin.cluster import Cluster
from inference_plugin.patches import ObjectPatch, guarded
from inference_plugin.telemetry import Metrics
from support import manifests as m

if TYPE_CHECKING:
    from support.scenario import Scenario

GROUP = HTTPROUTE.group


@pytest.mark.parametrize(
    ("group", "kind", "version", "expected"),
    [
        pytest.param(GROUP, "HTTPRoute", "v1", HTTPROUTE, id="the-version-asked-for"),
        pytest.param(
            GROUP,
            "HTTPRoute",
            "v1beta1",
            Resource(GROUP, "v1beta1", "httproutes", "HTTPRoute"),
            id="an-older-one-that-is-served-too",
        ),
        pytest.param(GROUP, "HTTPRoute", "v9", HTTPROUTE, id="the-preferred-one-instead"),
        pytest.param(GROUP, "HTTPRoute", "", HTTPROUTE, id="any"),
        pytest.param(GROUP, "Route", "v1", None, id="no-such-kind"),
        pytest.param("absent.example.com", "HTTPRoute", "v1", None, id="no-such-group"),
        pytest.param(
            "gateway.networking.k8s.io",
            "GatewayClass",
            "v1",
            Resource(GROUP, "v1", "gatewayclasses", "GatewayClass", namespaced=False),
            id="without-a-namespace",
        ),
    ],
)
async def test_a_kind_is_found_in_a_version_that_is_served(
    scenario: Scenario, group: str, kind: str, version: str, expected: Resource | None
) -> None:
    assert await scenario.kube.find(group, kind, version) == expected


async def test_objects_are_read_and_written_in_the_served_version(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that has HTTPRoutes in v1beta1 only, but for what it says when asked."""
    await scenario.apply(m.gateway(), m.route("chat", m.service_ref("a", 1)))
    real = scenario.kube.find

    async def find(group: str, kind: str, version: str = "") -> Resource | None:
        return await real(group, kind, "v1beta1" if kind == "HTTPRoute" else version)

    monkeypatch.setattr(scenario.kube, "find", find)
    seen: list[Any] = []
    async with Cluster(scenario.kube, Metrics(CollectorRegistry())) as cluster:
        cluster.listen(lambda resource, _kind, obj: seen.append((resource, obj["metadata"])))
        async with asyncio.timeout(180):
            await cluster.synced()
        assert cluster.serves(HTTPROUTE)
        route = cluster.get(HTTPROUTE, scenario.namespace, "chat")
        assert route is not None
        assert route["apiVersion"] == "gateway.networking.k8s.io/v1beta1"
        path = "/spec/rules/0/backendRefs/0/weight"
        await cluster.write(
            ObjectPatch(
                resource=HTTPROUTE,
                namespace=scenario.namespace,
                name="chat",
                operations=guarded(route, [{"op": "replace", "path": path, "value": 7}], None),
                summary="",
            )
        )
        written = cluster.get(HTTPROUTE, scenario.namespace, "chat")
    assert written is not None
    assert written["spec"]["rules"][0]["backendRefs"][0]["weight"] == 7
    assert (HTTPROUTE, written["metadata"]) in seen
