"""What the node agent writes: merged, repeated after trouble, and for the right pod only."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from inference_common.errors import KubeError, KubeUnreachable
from support.nodeagent import writes
from support.nodeagent.agent import NodeAgent
from support.nodeagent.places import Cluster
from support.nodeagent.writes import PodWrites

if TYPE_CHECKING:
    from inference_common.kube import Kube
    from support.nodeagent.api import PodApi
    from support.nodeagent.workers import PodWorker

POD: dict[str, Any] = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "status": {}}
CONFLICT = KubeError(409, "Conflict", "the object has been modified; please apply your changes")
# Recorded from API server 1.36.3: a status patch and a deletion with the uid of a replaced pod.
REPLACED = KubeError(
    422, "Invalid", 'Pod "p" is invalid: metadata.uid: Invalid value: "u": field is immutable'
)
REPLACED_ON_DELETION = KubeError(
    409,
    "Conflict",
    "Operation cannot be fulfilled on Pod: the UID in the precondition (u) does not match the"
    " UID in record (v). The object might have been deleted and then recreated",
)
NOT_FOUND = KubeError(404, "NotFound", 'pods "p" not found')


class Api:
    """Remembers writes; fails them with what was put into ``trouble`` first."""

    def __init__(self) -> None:
        self.statuses: list[dict[str, Any]] = []
        self.deletions = 0
        self.trouble: list[KubeError] = []
        self.wrote = asyncio.Event()

    async def write_status(self, _pod: object, status: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble.pop(0)
        self.statuses.append(status)
        self.wrote.set()

    async def delete(self, _pod: object) -> None:
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble.pop(0)
        self.deletions += 1


class Case:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writes, "FIRST_RETRY_S", 0.0)
        self.api = Api()
        self.status: dict[str, Any] = {"phase": "Pending"}
        self.writes = PodWrites(
            cast("PodApi", self.api), asyncio.Semaphore(1), lambda: POD, lambda _: self.status
        )
        self.gone = asyncio.Event()

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.writes.keep_status(self.gone.set))


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(monkeypatch)


async def test_changes_before_a_write_become_one(case: Case) -> None:
    task = case.start()
    for phase in ("Pending", "Running", "Failed"):
        case.status = {"phase": phase}
        case.writes.touch()
    await case.api.wrote.wait()
    task.cancel()
    assert case.api.statuses == [{"phase": "Failed"}]


async def test_an_unchanged_status_is_not_written_again(case: Case) -> None:
    await case.writes.write_status()
    await case.writes.write_status()
    assert len(case.api.statuses) == 1


async def test_a_change_during_a_write_is_written_after_it(case: Case) -> None:
    """The watch may report a change before the answer to an earlier write has come."""

    async def write_status(_pod: object, status: dict[str, Any]) -> None:
        if not case.api.statuses:
            case.status = {"phase": "Running"}
            case.writes.touch()
        case.api.statuses.append(status)
        if len(case.api.statuses) == 2:
            case.api.wrote.set()

    case.api.write_status = write_status  # type: ignore[method-assign]
    task = case.start()
    case.writes.touch()
    await case.api.wrote.wait()
    task.cancel()
    assert [status["phase"] for status in case.api.statuses] == ["Pending", "Running"]


@pytest.mark.parametrize(
    "error", [KubeUnreachable("refused"), KubeError(500, "", ""), CONFLICT], ids=str
)
async def test_a_write_is_repeated_after_trouble(case: Case, error: KubeError) -> None:
    case.api.trouble = [error]
    task = case.start()
    case.writes.touch()
    await case.api.wrote.wait()
    task.cancel()
    assert not case.gone.is_set()
    assert case.api.statuses == [{"phase": "Pending"}]


@pytest.mark.parametrize(
    "error",
    [NOT_FOUND, REPLACED, REPLACED_ON_DELETION],
    ids=["removed", "replaced", "replaced-on-deletion"],
)
async def test_a_pod_that_is_not_there_any_more_is_given_up(case: Case, error: KubeError) -> None:
    case.api.trouble = [error]
    task = case.start()
    case.writes.touch()
    await task
    assert case.gone.is_set()
    await case.writes.remove(final_status=True)
    assert (case.api.statuses, case.api.deletions) == ([], 0)


async def test_the_last_status_comes_before_the_deletion(case: Case) -> None:
    case.api.trouble = [KubeUnreachable("refused")]
    await case.writes.remove(final_status=True)
    assert (len(case.api.statuses), case.api.deletions) == (1, 1)


async def test_a_refused_last_status_does_not_keep_the_pod(case: Case) -> None:
    case.api.trouble = [KubeError(422, "Invalid", "status.x: not allowed")]
    await case.writes.remove(final_status=True)
    assert (len(case.api.statuses), case.api.deletions) == (0, 1)


async def test_the_same_event_is_news_once(case: Case) -> None:
    asked = [case.writes.is_news("BackOff", "m"), case.writes.is_news("BackOff", "m")]
    assert asked == [True, False]
    assert case.writes.is_news("BackOff", "other")


async def test_a_pod_that_was_replaced_unseen_ends(tmp_path: Path) -> None:
    """A watch that was interrupted reports a pod of the same name and another uid as a change."""
    cluster = Cluster(host="127.0.0.1", port=1, ca_file=Path("/ca"))
    agent = NodeAgent(
        cast("Kube", None), network="127.9.0.0/16", root=tmp_path, cluster=cluster, names=["n"]
    )
    ended: list[str] = []

    class Worker:
        def gone(self) -> None:
            ended.append("u")

    agent._workers["u"] = cast("PodWorker", Worker())
    spec = {"containers": [], "schedulerName": "other"}
    agent._on_pod("ADDED", POD | {"spec": spec | {"nodeName": "elsewhere"}})
    new = POD | {"metadata": POD["metadata"] | {"uid": "v"}, "spec": spec}
    agent._on_pod("MODIFIED", new)
    assert ended == ["u"]
