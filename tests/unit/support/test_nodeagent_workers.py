"""The race between the watch and the answer to a write."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from support.nodeagent.places import Cluster
from support.nodeagent.workers import Host, PodWorker

if TYPE_CHECKING:
    from support.nodeagent.api import PodApi
    from support.nodeagent.probing import Prober

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
    "spec": {"containers": [{"name": "m", "image": "inference-rollouts/noop:1"}]},
}
UNREADY = {"annotations": {"local.inference-rollouts.io/ready": "false"}}


class SlowApi:
    """Answers a write only when the test lets it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.ready: list[bool] = []
        self.deleted = asyncio.Event()

    async def write_status(self, _pod: object, status: dict[str, Any]) -> None:
        self.ready.append(status["containerStatuses"][0]["ready"])
        self.asked.set()
        await self.answer.wait()

    async def delete(self, _pod: object) -> None:
        self.deleted.set()


def worker(api: SlowApi, root: Path) -> PodWorker:
    host = Host(
        api=cast("PodApi", api),
        prober=cast("Prober", None),
        cluster=Cluster(host="127.9.0.1", port=6443, ca_file=Path("/ca")),
        root=root,
        address="127.9.0.1",
        allocatable={},
        writes=asyncio.Semaphore(4),
    )
    return PodWorker(POD, "127.9.1.1", host)


async def test_a_change_seen_before_the_answer_to_the_first_write_is_not_lost(
    tmp_path: Path,
) -> None:
    api = SlowApi()
    one = worker(api, tmp_path)
    running = asyncio.create_task(one.run())
    await api.asked.wait()
    one.update(POD | {"metadata": POD["metadata"] | UNREADY})
    api.asked.clear()
    api.answer.set()
    await api.asked.wait()
    assert api.ready == [True, False]
    deleted = POD["metadata"] | UNREADY | {"deletionTimestamp": "t"}
    one.update(POD | {"metadata": deleted})
    await running
    assert api.deleted.is_set()
    assert api.ready == [True, False], "a no-op pod is removed without a last status"


async def test_a_pod_that_is_deleted_before_it_started_is_only_removed(tmp_path: Path) -> None:
    api = SlowApi()
    one = worker(api, tmp_path)
    one.update(POD | {"metadata": POD["metadata"] | {"deletionTimestamp": "t"}})
    await one.run()
    assert api.deleted.is_set()
    assert api.ready == []
    assert os.listdir(tmp_path) == [], "a no-op pod leaves no trace on disk"  # noqa: PTH208


async def test_a_force_deleted_pod_is_not_deleted_again(tmp_path: Path) -> None:
    api = SlowApi()
    api.answer.set()
    one = worker(api, tmp_path)
    running = asyncio.create_task(one.run())
    await api.asked.wait()
    one.gone()
    await running
    assert not api.deleted.is_set()
