"""What the prober watches, over a stub of the API server's list and watch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from inference_common.kube import INFERENCEPOOL, POD, ROLLOUT, Kube
from inference_plugin.prober.watch import PoolWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inference_common.kube import Resource


class Cluster:
    """Lists by (plural, selector); watches that wait for what `send` gives them."""

    def __init__(self) -> None:
        self.lists: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
        self.watching: dict[tuple[str, str | None], asyncio.Queue[tuple[str, Any]]] = {}

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> dict[str, Any]:
        assert namespace == "llm"
        items = self.lists.get((resource.plural, label_selector or field_selector), [])
        return {"metadata": {"resourceVersion": "10"}, "items": items}

    async def watch(
        self,
        resource: Resource,
        _namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        **_: Any,
    ) -> AsyncIterator[tuple[str, Any]]:
        queue = self.queue(resource.plural, label_selector or field_selector)
        while True:
            yield await queue.get()

    def queue(self, plural: str, selector: str | None) -> asyncio.Queue[tuple[str, Any]]:
        return self.watching.setdefault((plural, selector), asyncio.Queue())


def make(name: str, version: int = 1, **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "llm", "resourceVersion": str(version)}
    return {"metadata": metadata, **rest}


def make_pool(version: int = 1, **labels: str) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": labels}, "targetPorts": [{"number": 8000}]}
    return make("qwen", version, spec=spec)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def watch(cluster: Cluster, **changes: Any) -> PoolWatch:
    wanted = {
        "namespace": "llm",
        "pool": "qwen",
        "pool_group": INFERENCEPOOL.group,
        "rollout": "release",
        "revision": "abc",
    }
    return PoolWatch(cast("Kube", cluster), **(wanted | changes))


POOL_KEY = (INFERENCEPOOL.plural, "metadata.name=qwen")


async def test_a_view_has_the_pods_that_the_pool_selects_and_its_ports(cluster: Cluster) -> None:
    cluster.lists[POOL_KEY] = [make_pool(app="a")]
    cluster.lists[POD.plural, "app=a"] = [make("pod-1"), make("pod-2")]
    async with watch(cluster) as pool:
        view = await pool.view()
    assert [pod["metadata"]["name"] for pod in view.pods] == ["pod-1", "pod-2"]
    assert view.ports == (8000,)


async def test_a_pool_that_does_not_exist_has_no_pods(cluster: Cluster) -> None:
    async with watch(cluster) as pool:
        view = await pool.view()
    assert (list(view.pods), view.ports) == ([], ())


async def test_another_selector_brings_other_pods(cluster: Cluster) -> None:
    cluster.lists[POOL_KEY] = [make_pool(app="a")]
    cluster.lists[POD.plural, "app=a"] = [make("pod-1")]
    cluster.lists[POD.plural, "app=b"] = [make("pod-2")]
    async with watch(cluster) as pool:
        await pool.view()
        cluster.queue(*POOL_KEY).put_nowait(("MODIFIED", make_pool(11, app="b")))
        await pool._pools.until(
            lambda cache: (cache.get("qwen", "llm") or {})["metadata"]["resourceVersion"] == "11", 5
        )
        view = await pool.view()
    assert [pod["metadata"]["name"] for pod in view.pods] == ["pod-2"]


async def test_a_pool_without_selector_selects_nothing(cluster: Cluster) -> None:
    cluster.lists[POOL_KEY] = [make_pool()]
    cluster.lists[POD.plural, None] = [make("pod-1")]
    async with watch(cluster) as pool:
        assert list((await pool.view()).pods) == []


@pytest.mark.parametrize(
    ("changes", "stable"),
    [
        pytest.param({}, True, id="the-stable-revision"),
        pytest.param({"revision": "def"}, False, id="another-revision"),
        pytest.param({"revision": None}, False, id="revision-not-told"),
        pytest.param({"rollout": None}, False, id="rollout-not-told"),
        pytest.param({"rollout": "other"}, False, id="no-such-rollout"),
    ],
)
async def test_stable_is_read_from_the_rollout(
    cluster: Cluster, changes: dict[str, Any], stable: bool
) -> None:
    cluster.lists[POOL_KEY] = [make_pool(app="a")]
    key = (ROLLOUT.plural, "metadata.name=release")
    cluster.lists[key] = [make("release", status={"stableRS": "abc"})]
    async with watch(cluster, **changes) as pool:
        if pool._rollouts is not None:
            await pool._rollouts.synced()
        assert (await pool.view()).stable is stable
