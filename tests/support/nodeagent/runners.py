"""One container: start, probes, restarts, termination."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from inference_common.errors import KubeError
from support.nodeagent.containers import (
    Terminated,
    backoff_s,
    exit_code_of,
    restarts_after,
)
from support.nodeagent.environment import ConfigError
from support.nodeagent.fields import FieldError
from support.nodeagent.images import UnknownImageError
from support.nodeagent.moments import now_utc
from support.nodeagent.probes import Probe, ProbeKind, ProbeState, action_of, probes_of
from support.nodeagent.probing import Target
from support.nodeagent.processes import Process, ProcessStartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from support.nodeagent.commands import Launch
    from support.nodeagent.containers import ContainerRecord
    from support.nodeagent.probing import Prober

_log = structlog.get_logger(__name__)

_RETRY_S: Final = 1.0
_LEAST_GRACE_S: Final = 2.0
"""What is left for SIGTERM when preStop used up the grace period, as with a kubelet."""
_START_ERROR: Final = 128


class Surroundings(Protocol):
    """What a container needs of its pod."""

    async def launch(self, container: Mapping[str, Any]) -> Launch:
        """What to run now; its references may have changed since the last start."""

    def changed(self, record: ContainerRecord) -> None:
        """Take note of a new record."""

    def event(self, kind: str, reason: str, message: str, container: str) -> None:
        """Report something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """What is the same for each start of a container. ``backoff`` says how long to wait."""

    container: Mapping[str, Any]
    policy: str
    address: str
    grace_s: float
    records: Path
    backoff: Callable[[float | None, float], float] = backoff_s


class ContainerRunner:
    """Runs a container until it ends for good or is stopped."""

    def __init__(
        self,
        settings: RunnerSettings,
        record: ContainerRecord,
        surroundings: Surroundings,
        prober: Prober,
    ) -> None:
        """Continue from the record: its restarts and last state count on."""
        self.record = record
        self.started = asyncio.Event()
        """Set once the container runs and its startup probe, if any, has succeeded."""
        self._settings = settings
        self._surroundings = surroundings
        self._prober = prober
        self._stopping = False
        self._process: Process | None = None
        self._target: Target | None = None
        self._task: asyncio.Task[Any] | None = None

    @property
    def name(self) -> str:
        """Name of the container."""
        return str(self._settings.container["name"])

    async def run(self) -> int:
        """Run it to its end and return the last exit code."""
        self._task = asyncio.current_task()
        waited_s: float | None = None
        try:
            while True:
                ended = await self._run_once()
                policy = self._settings.policy
                if self._stopping or not restarts_after(policy, ended.exit_code):
                    return ended.exit_code
                waited_s = self._settings.backoff(waited_s, ended.ran_s)
                if waited_s > 0:
                    message = f"back-off {waited_s:.0f} s restarting failed container {self.name}"
                    self._set(self.record.waits("CrashLoopBackOff", message))
                    self._report("Warning", "BackOff", message)
                    await asyncio.sleep(waited_s)
        except asyncio.CancelledError:
            if not self._stopping or self._task is None:
                raise
            self._task.uncancel()
            last = self.record.last
            return last.exit_code if last is not None else 0

    async def stop(self, grace_s: float) -> None:
        """preStop, SIGTERM, and SIGKILL when the grace period is over; no restart after it."""
        self._stopping = True
        if self._process is not None and self._process.running:
            await self._end(self._process, grace_s)
        elif self._task is not None:
            self._task.cancel()

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        if self._process is not None and self._process.running:
            self._process.kill()
        elif self._task is not None:
            self._task.cancel()

    async def _run_once(self) -> Terminated:
        try:
            launch = await self._launch()
            if self._stopping:
                raise asyncio.CancelledError
            process = Process.start(launch.process, self._settings.records)
        except (ProcessStartError, OSError) as error:
            self._report("Warning", "Failed", f"Error: {error}")
            return self._ended(_START_ERROR, "StartError", str(error))
        self._process = process
        _log.info(
            "container started",
            container=self.name,
            pid=process.pid,
            address=self._settings.address,
            log=str(launch.process.log),
        )
        self._target = Target(
            container=self._settings.container,
            address=self._settings.address,
            launch=launch,
            records=self._settings.records,
        )
        probes = probes_of(self._settings.container)
        gated = ProbeKind.STARTUP in probes
        hook = (self._settings.container.get("lifecycle") or {}).get("postStart")
        self._set(
            self.record.runs(
                now_utc(),
                started=not gated and hook is None,
                ready=ProbeKind.READINESS not in probes,
            )
        )
        watching = asyncio.create_task(self._watch(process, probes, hook))
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        return self._ended(exit_code_of(code))

    async def _launch(self) -> Launch:
        """What to run, as soon as everything that it refers to is there."""
        while True:
            try:
                return await self._surroundings.launch(self._settings.container)
            except UnknownImageError as error:
                # The image of a pod may be changed, so that this is looked at again as well.
                self._hold("ErrImageNeverPull", str(error))
            except (ConfigError, FieldError) as error:
                self._hold("CreateContainerConfigError", str(error))
            except KubeError as error:
                self._hold("CreateContainerConfigError", str(error))
            await asyncio.sleep(_RETRY_S)

    def _hold(self, reason: str, message: str) -> None:
        self._set(self.record.waits(reason, message))
        self._report("Warning", "Failed", f"Error: {message}")

    async def _watch(
        self, process: Process, probes: Mapping[ProbeKind, Probe], hook: Mapping[str, Any] | None
    ) -> None:
        since = asyncio.get_running_loop().time()
        if hook is not None and not await self._hook("postStart", hook, self._settings.grace_s):
            await self._end(process, self._settings.grace_s)
            return
        if (startup := probes.get(ProbeKind.STARTUP)) is not None:
            await self._probe(startup, process, since)
        self._set(self.record.probed(started=True))
        self.started.set()
        async with asyncio.TaskGroup() as group:
            for kind, probe in probes.items():
                if kind is not ProbeKind.STARTUP:
                    group.create_task(self._probe(probe, process, since))

    async def _probe(self, probe: Probe, process: Process, since: float) -> None:
        """Ask each period. A startup probe returns on success; a readiness probe never does."""
        assert self._target is not None
        loop = asyncio.get_running_loop()
        due = since + probe.initial_delay_s
        state = ProbeState()
        while True:
            await asyncio.sleep(due - loop.time())
            due = max(due + probe.period_s, loop.time())
            answer = await self._prober.ask(probe.action, self._target, probe.timeout_s)
            state = state.after(probe, answer=answer.ok)
            if not answer.ok:
                kind = probe.kind.value.capitalize()
                self._report("Warning", "Unhealthy", f"{kind} probe failed: {answer.message}")
            if probe.kind is ProbeKind.READINESS:
                self._set(self.record.probed(ready=bool(state.verdict)))
            elif state.verdict is False:
                message = f"container {self.name} failed {probe.kind.value} probe, restarting"
                self._report("Normal", "Killing", message)
                grace = self._settings.grace_s if probe.grace_s is None else probe.grace_s
                await self._end(process, grace)
                return
            elif state.verdict and probe.kind is ProbeKind.STARTUP:
                return

    async def _end(self, process: Process, grace_s: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        hook = (self._settings.container.get("lifecycle") or {}).get("preStop")
        if hook is not None and grace_s > 0:
            await self._hook("preStop", hook, grace_s)
            until = max(until, loop.time() + _LEAST_GRACE_S)
        await process.stop(max(0.0, until - loop.time()))

    async def _hook(self, kind: str, hook: Mapping[str, Any], timeout_s: float) -> bool:
        assert self._target is not None
        answer = await self._prober.ask(action_of(hook), self._target, timeout_s)
        if not answer.ok:
            reason = "FailedPostStartHook" if kind == "postStart" else "FailedPreStopHook"
            self._report("Warning", reason, f"{kind} hook failed: {answer.message}")
        return answer.ok

    def _ended(self, exit_code: int, reason: str = "", message: str = "") -> Terminated:
        self.started.clear()
        self._set(self.record.ends(exit_code, now_utc(), reason, message))
        assert isinstance(self.record.state, Terminated)
        return self.record.state

    def _set(self, record: ContainerRecord) -> None:
        if record != self.record:
            self.record = record
            self._surroundings.changed(record)

    def _report(self, kind: str, reason: str, message: str) -> None:
        self._surroundings.event(kind, reason, message, self.name)
