"""Keeps processes running: started, watched, restarted, stopped in reverse order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from support.cluster.probe import until
from support.cluster.process import spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from support.cluster.component import Component
    from support.cluster.layout import Layout

_log = structlog.get_logger()
_BACK_OFF_S: Final = 0.5
_FIRST_START_DEATHS: Final = 5
_LOG_TAIL: Final = 15


class ClusterError(Exception):
    """The cluster can't run; the text says which part, why, and where its log is."""


@dataclass(slots=True, kw_only=True)
class _Child:
    component: Component
    started: float
    restarts: int = -1
    process: subprocess.Popen[bytes] | None = None
    task: asyncio.Task[None] | None = None
    ready: bool = False
    exits: list[int] = field(default_factory=list)


class Supervisor:
    """The processes of one cluster. ``start`` them in order; ``stop`` undoes it in reverse.

    A process that dies is started again after half a second. Everything here runs in one thread.
    """

    def __init__(
        self, layout: Layout, environment: Mapping[str, str], tell: Callable[[str, float], None]
    ) -> None:
        """``environment`` is given to every process; ``tell(name, seconds)`` hears of readiness."""
        self._layout = layout
        self._environment = environment
        self._tell = tell
        self._children: dict[str, _Child] = {}

    async def start(self, component: Component) -> None:
        """Start a process and wait until it is ready. Raises ClusterError when it isn't in time."""
        child = _Child(component=component, started=time.monotonic())
        self._children[component.name] = child
        child.task = asyncio.create_task(self._keep_running(child), name=component.name)
        ready = asyncio.create_task(until(component.ready, component.patience_s))
        await asyncio.wait({ready, child.task}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            raise ClusterError(
                f"{component.name} died {len(child.exits)} times before it was ready (exit codes"
                f" {child.exits}){self._log_tail(component.name)}"
            )
        if not ready.result():
            raise ClusterError(
                f"{component.name} was not ready within {component.patience_s:.0f} s"
                f"{self._log_tail(component.name)}"
            )
        child.ready = True
        self._write_status()
        self._tell(component.name, time.monotonic() - child.started)

    def names(self) -> list[str]:
        """Names of the processes, in the order of their start."""
        return list(self._children)

    async def stop(self) -> None:
        """Stop all processes, the last started first."""
        for child in reversed(self._children.values()):
            if child.task is not None:
                child.task.cancel()
                with suppress(asyncio.CancelledError):
                    await child.task
            if child.process is not None:
                await self._terminate(child)
            self._layout.pid_file(child.component.name).unlink(missing_ok=True)
        self._children.clear()

    async def _keep_running(self, child: _Child) -> None:
        name = child.component.name
        while True:
            child.process = spawn(
                child.component.argv,
                env={**self._environment, **child.component.env},
                cwd=child.component.cwd,
                log=self._layout.log(name),
            )
            child.restarts += 1
            _replace(self._layout.pid_file(name), f"{child.process.pid}\n")
            self._write_status()
            code = await exit_code(child.process)
            child.process = None
            child.exits.append(code)
            _log.warning("process ended", name=name, exit_code=code, restarts=child.restarts)
            self._write_status()
            if not child.ready and len(child.exits) >= _FIRST_START_DEATHS:
                return  # start() reports it
            await asyncio.sleep(_BACK_OFF_S)

    async def _terminate(self, child: _Child) -> None:
        process = child.process
        if process is None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(exit_code(process), child.component.stop_s)
        except TimeoutError:
            _log.warning("process did not stop in time", name=child.component.name)
            # Its own session: whatever it started and left in its group goes with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await exit_code(process)

    def _write_status(self) -> None:
        status = {
            name: {
                "pid": child.process.pid if child.process else None,
                "ready": child.ready,
                "restarts": max(child.restarts, 0),
                "exit_codes": child.exits,
            }
            for name, child in self._children.items()
        }
        _replace(self._layout.status, json.dumps(status, indent=2))

    def _log_tail(self, name: str) -> str:
        log = self._layout.log(name)
        lines = log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
        return f"; the end of {log}:\n" + "\n".join(lines)


def _replace(path: Path, text: str) -> None:
    """Write a file that others read at any time: they see the old text or the new one."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(path)


async def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child by its pidfd: no thread, no signal handler, no polling."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    descriptor = os.pidfd_open(process.pid)

    def on_end() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, on_end)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()
