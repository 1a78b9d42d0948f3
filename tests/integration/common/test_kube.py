"""The client and the watch cache against a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inference_common.errors import KubeError, KubeUnreachable
from inference_common.kube import CONFIGMAP, HTTPROUTE, POD, Kube, Object, PatchKind, Resource
from inference_common.watching import WatchCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.cluster.client import ClusterClient
    from support.scenario import Scenario


@pytest.fixture
async def kube(cluster: ClusterClient) -> AsyncIterator[Kube]:
    found = await Kube.connect(cluster.kubeconfig)
    yield found
    await found.close()


def config_map(name: str, value: str) -> Object:
    metadata = {"name": name}
    data = {"key": value}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def test_a_cache_follows_creation_change_and_deletion(scenario: Scenario, kube: Kube) -> None:
    where = scenario.namespace
    async with WatchCache(kube, CONFIGMAP, where) as cache:
        await cache.synced()
        created = await kube.create(CONFIGMAP, config_map("x", "1"), where)
        await cache.until(lambda c: c.get("x", where), 120)
        change = [{"op": "replace", "path": "/data/key", "value": "2"}]
        cache.put(await kube.patch(CONFIGMAP, "x", change, where))
        assert (cache.get("x", where) or {})["data"] == {"key": "2"}
        await kube.delete(CONFIGMAP, "x", where, uid=created["metadata"]["uid"])
        await cache.until(lambda c: c.get("x", where) is None, 120)


async def test_a_failed_test_operation_is_422_and_a_stale_version_409(
    scenario: Scenario, kube: Kube
) -> None:
    """Measured on API server 1.36.3: only a replaced resourceVersion answers 409."""
    where = scenario.namespace
    await kube.create(CONFIGMAP, config_map("x", "1"), where)
    with pytest.raises(KubeError) as failed_test:
        await kube.patch(CONFIGMAP, "x", [{"op": "test", "path": "/data/key", "value": "9"}], where)
    assert failed_test.value.invalid
    stale = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "replace", "path": "/data/key", "value": "2"},
    ]
    with pytest.raises(KubeError) as conflict:
        await kube.patch(CONFIGMAP, "x", stale, where)
    assert conflict.value.conflict


async def test_server_side_apply_owns_one_key_and_leaves_the_others(
    scenario: Scenario, kube: Kube
) -> None:
    where = scenario.namespace
    await kube.create(CONFIGMAP, config_map("x", "1"), where)
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    found = await kube.patch(
        CONFIGMAP, "x", applied | {"data": {"other": "2"}}, where, kind=PatchKind.APPLY
    )
    assert found["data"] == {"key": "1", "other": "2"}


async def test_what_is_missing_is_told_apart_from_what_is_not_served(kube: Kube) -> None:
    with pytest.raises(KubeError) as missing:
        await kube.get(CONFIGMAP, "nothing-of-that-name", "default")
    assert missing.value.not_found
    assert not missing.value.retryable
    assert await kube.serves(HTTPROUTE)
    assert await kube.serves(POD)
    assert not await kube.serves(Resource("example.com", "v1", "widgets", "Widget"))


async def test_a_server_that_does_not_answer_is_unreachable_and_retryable(
    cluster: ClusterClient, kube: Kube
) -> None:
    del cluster
    kube._host = "https://127.0.0.1:9"
    with pytest.raises(KubeUnreachable) as unreachable:
        await kube.list(CONFIGMAP, "default")
    assert unreachable.value.retryable
