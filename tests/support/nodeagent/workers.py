"""One pod on this node, from its binding to its removal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from support.nodeagent.commands import Launch, Place, launch_of
from support.nodeagent.containers import (
    ContainerRecord,
    Running,
    Terminated,
    restart_policy,
    restarts_after,
)
from support.nodeagent.environment import container_references
from support.nodeagent.groups import RunnerGroup
from support.nodeagent.images import is_noop
from support.nodeagent.moments import moment_of, now_utc
from support.nodeagent.phases import FINISHED, PodFacts, is_sidecar
from support.nodeagent.places import Cluster, PodPlace, pod_directory
from support.nodeagent.recovery import restored_records
from support.nodeagent.runners import ContainerRunner, RunnerSettings
from support.nodeagent.statuses import pod_status
from support.nodeagent.writes import LAST_RETRY_S, PodWrites

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.nodeagent.api import PodApi
    from support.nodeagent.probing import Prober

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What all pods of a node share. ``writes`` bounds the requests in flight."""

    api: PodApi
    prober: Prober
    cluster: Cluster
    root: Path
    address: str
    allocatable: Mapping[str, str]
    writes: asyncio.Semaphore


class PodWorker:
    """Runs a pod. ``update`` tells it of changes, ``run`` returns when the pod is removed."""

    def __init__(self, pod: dict[str, Any], address: str, host: Host) -> None:
        """Take over the pod as its status says; containers that ran are lost."""
        self._host = host
        self._pod = pod
        self._address = address
        status = pod.get("status") or {}
        start = status.get("startTime")
        self._started_at = moment_of(start) if start else now_utc()
        self._records = restored_records(pod)
        self._finished = status.get("phase") in FINISHED
        self._failure: tuple[str, str] | None = None
        self._ending = False
        self._deleted = asyncio.Event()
        init = pod["spec"].get("initContainers") or []
        self._runners = RunnerGroup([one["name"] for one in init if is_sidecar(one)])
        directory = pod_directory(host.root, pod)
        self._volumes = PodPlace(directory, host.cluster, host.allocatable, host.api)
        self._place: Place | None = None
        self._placing = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._events: set[asyncio.Task[None]] = set()
        self._writes = PodWrites(host.api, host.writes, lambda: self._pod, self._status)
        self._writer: asyncio.Task[None] | None = None
        self._notice_deletion()

    @property
    def pod(self) -> dict[str, Any]:
        """The pod with the addresses that this node gives it, as its containers see it."""
        status = (self._pod.get("status") or {}) | {
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "hostIP": self._host.address,
            "hostIPs": [{"ip": self._host.address}],
        }
        return self._pod | {"status": status}

    @property
    def is_gone(self) -> bool:
        """Whether the object no longer exists."""
        return self._writes.gone

    def update(self, pod: dict[str, Any]) -> None:
        """Take in a newer version of the pod."""
        self._pod = pod
        self._notice_deletion()
        # Before the first status there is nothing to compare with. Not `written`: the watch may
        # report a change before the answer to the write that preceded it is here.
        if self._writes.begun and (self._runners or not self._deleted.is_set()):
            self._writes.touch()

    def gone(self) -> None:
        """The object is gone (force deletion): end everything at once."""
        self._ending = True
        self._writes.gone = True
        self._deleted.set()
        self._runners.kill()

    async def run(self) -> None:
        """Live and die with the pod."""
        self._writer = asyncio.create_task(self._writes.keep_status(self.gone))
        self._writer.add_done_callback(self._ended)
        try:
            await self._run_containers()
            self._volumes.remove()
            # The writer may be in the midst of a write, which the last one waits for.
            await self._writes.remove(final_status=bool(self._runners))
        finally:
            self._writer.cancel()

    async def _run_containers(self) -> None:
        life = self._spawn(self._live())
        try:
            await self._enforce_deadline(life)
            await self._deleted.wait()
            await self._terminate(life)
        finally:
            for task in self._background:
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            self._runners.kill()

    async def halt(self, grace_s: float) -> None:
        """End the containers without telling the API server: the agent stops, not the pod."""
        self._ending = True
        if self._writer is not None:
            self._writer.cancel()
        await self._runners.stop(grace_s)

    # What a runner needs of its pod (runners.Surroundings).

    async def launch(self, container: Mapping[str, Any]) -> Launch:
        """What to run in this container now."""
        async with self._placing:
            if self._place is None:
                self._place = await self._volumes.settle(lambda: self.pod, self._volume_trouble)
                self._spawn(self._volumes.keep(lambda: self.pod, self._volume_trouble))
            place = self._place
        references = container_references(container)
        namespace = self._pod["metadata"]["namespace"]
        contents = await self._host.api.contents(namespace, references)
        return launch_of(self.pod, container, contents, place)

    def changed(self, record: ContainerRecord) -> None:
        """Note a container's new record; the status follows."""
        self._records[record.name] = record
        self._writes.touch()

    def event(self, kind: str, reason: str, message: str, container: str) -> None:
        """Write an Event, unless the same was reported a moment ago."""
        if self._writes.is_news(reason, container):
            # Not among the background tasks: the last Events of a pod are written after its end.
            task = asyncio.create_task(self._writes.event(kind, reason, message, container))
            self._events.add(task)
            task.add_done_callback(self._events.discard)

    # The pod's life.

    async def _live(self) -> None:
        """Init containers, then the others; returns when all have ended for good."""
        if self._finished or self._deleted.is_set():
            return
        spec = self._pod["spec"]
        for container in spec.get("initContainers") or []:
            if not await self._initialise(container) or self._ending:
                return
        runners = []
        for container in spec["containers"]:
            if is_noop(container):
                self.changed(_running(self._records[container["name"]]))
            elif not self._is_over(container):
                runners.append(self._runner(container, init=False))
        # A pod whose containers all ended under an earlier agent has no other status to come.
        self._writes.touch()
        await asyncio.gather(*(runner.run() for runner in runners))
        if any(is_noop(container) for container in spec["containers"]):
            await self._deleted.wait()
        await self._runners.stop_sidecars(self._grace_s())

    async def _initialise(self, container: dict[str, Any]) -> bool:
        """Run an init container to its success, or start a sidecar; False when it failed."""
        record = self._records[container["name"]]
        if is_noop(container):
            running = _running(record)
            self.changed(running if is_sidecar(container) else running.ends(0, now_utc()))
            return True
        if not is_sidecar(container):
            if isinstance(record.state, Terminated) and record.state.exit_code == 0:
                return True
            return await self._runner(container, init=True).run() == 0
        runner = self._runner(container, init=True)
        self._spawn(_until_end(runner))
        await runner.started.wait()
        return True

    def _runner(self, container: Mapping[str, Any], *, init: bool) -> ContainerRunner:
        settings = RunnerSettings(
            container=container,
            policy=restart_policy(self._pod, container, init=init),
            address=self._address,
            grace_s=float(self._pod["spec"].get("terminationGracePeriodSeconds", 30)),
            records=self._host.root / "node-agent" / "processes",
        )
        record = self._records[container["name"]]
        runner = ContainerRunner(settings, record, self, self._host.prober)
        self._runners.add(runner)
        return runner

    def _is_over(self, container: Mapping[str, Any]) -> bool:
        """Whether the container ended before this agent started, and is not started again."""
        state = self._records[container["name"]].state
        policy = restart_policy(self._pod, container, init=False)
        return isinstance(state, Terminated) and not restarts_after(policy, state.exit_code)

    def _volume_trouble(self, message: str) -> None:
        self.event("Warning", "FailedMount", message, "")
        self._writes.touch()

    async def _enforce_deadline(self, life: asyncio.Task[None]) -> None:
        """End the containers when the pod outlives activeDeadlineSeconds."""
        deadline = self._pod["spec"].get("activeDeadlineSeconds")
        if deadline is None or self._finished:
            return
        deletion = asyncio.create_task(self._deleted.wait())
        try:
            left = deadline - (now_utc() - self._started_at).total_seconds()
            ended, _ = await asyncio.wait(
                (deletion, life), timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            deletion.cancel()
        if not ended:
            message = "Pod was active on the node longer than the specified deadline"
            self._ending = True
            self._failure = ("DeadlineExceeded", message)
            self.event("Normal", "DeadlineExceeded", message, "")
            await self._runners.stop(self._grace_s())
            self._end_noops()

    async def _terminate(self, life: asyncio.Task[None]) -> None:
        if self.is_gone or not self._runners:
            return
        self._writes.touch()
        await self._runners.stop(self._grace_s())
        await asyncio.wait({life}, timeout=LAST_RETRY_S)
        self._end_noops()

    def _end_noops(self) -> None:
        for container in self._pod["spec"]["containers"]:
            record = self._records[container["name"]]
            if is_noop(container) and isinstance(record.state, Running):
                self._records[record.name] = record.ends(0, now_utc())
        self._writes.touch()

    def _grace_s(self) -> float:
        """The grace period of a deletion, else that of the spec."""
        given = self._pod["metadata"].get("deletionGracePeriodSeconds")
        if given is None:
            given = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
        return float(given)

    def _notice_deletion(self) -> None:
        if "deletionTimestamp" in self._pod["metadata"]:
            self._ending = True
            self._deleted.set()

    def _status(self, previous: Mapping[str, Any]) -> dict[str, Any]:
        facts = PodFacts(
            records=dict(self._records),
            pod_ip=self._address,
            host_ip=self._host.address,
            started_at=self._started_at,
            terminating="deletionTimestamp" in self._pod["metadata"],
            failure=self._failure,
        )
        return pod_status(self._pod, facts, previous, now_utc())

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            name = self._pod["metadata"]["name"]
            _log.error("a task of a pod failed", pod=name, exc_info=error)


def _running(record: ContainerRecord) -> ContainerRecord:
    """The record of a no-op container that runs, as before where it does already."""
    if isinstance(record.state, Running):
        return record
    return record.runs(now_utc(), started=True, ready=True)


async def _until_end(runner: ContainerRunner) -> None:
    await runner.run()
