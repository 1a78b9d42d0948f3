"""Local processes that end with the node agent.

Each process leads its own session, so that a whole container can be killed, and asks the kernel
to kill it when the agent dies (PR_SET_PDEATHSIG, by setpriv of util-linux: doing it in Python
between fork and exec would cost a copy of the agent for each start). That signal reaches only
the first process of a container; its descendants are found by ``sweep`` when the next agent
starts, from a record of every session.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run. The log file gets stdout and stderr and is appended to."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path


class ProcessStartError(Exception):
    """A process that could not be started: program or directory not found."""


def launcher() -> str:
    """Path of setpriv. Raises ProcessStartError, with the remedy, where it is missing."""
    found = shutil.which("setpriv")
    if found is None:
        raise ProcessStartError("setpriv not found on PATH; install util-linux")
    return found


class Process:
    """A running process and, once it has ended, its return code (negative: a signal)."""

    def __init__(self, popen: subprocess.Popen[bytes], record: Path) -> None:
        """Watch a started process; use ``start`` instead."""
        self.pid = popen.pid
        self._popen = popen
        self._record = record
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @classmethod
    def start(cls, spec: ProcessSpec, records: Path) -> Self:
        """Start it; ``records`` is the folder that remembers sessions for ``sweep``.

        Raises ProcessStartError.
        """
        name = spec.argv[0]
        wanted = str(spec.cwd / name) if "/" in name else name
        program = shutil.which(wanted, path=spec.env.get("PATH"))
        if program is None:
            raise ProcessStartError(
                f'"{name}": program not found in {spec.env.get("PATH", "an empty PATH")}'
            )
        if not spec.cwd.is_dir():
            raise ProcessStartError(
                f'working directory "{spec.cwd}" does not exist on this machine'
            )
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with spec.log.open("ab") as log:
            popen = subprocess.Popen(
                [launcher(), "--pdeathsig", "KILL", "--", program, *spec.argv[1:]],
                env=dict(spec.env),
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        records.mkdir(parents=True, exist_ok=True)
        record = records / str(popen.pid)
        record.write_text(_start_time(popen.pid) or "")
        return cls(popen, record)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.done()

    async def wait(self) -> int:
        """Its return code, once it has ended."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it still runs."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill every process of the session's group."""
        if self.running:
            _kill_group(self.pid)

    async def stop(self, grace_s: float) -> int:
        """SIGTERM to the process, SIGKILL to its group after the grace period; its return code."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                return await self.wait()
        self.kill()
        return await self.wait()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        # What the process leaves behind goes with it, as in a container. Before it is reaped its
        # number cannot belong to anybody else.
        _kill_group(self.pid)
        code = self._popen.wait()
        self._record.unlink(missing_ok=True)
        self._ended.set_result(code)


def sweep(records: Path) -> list[int]:
    """Kill what an earlier agent's containers left running, and forget the records.

    A session counts as ours when its leader is gone or is the very process that was recorded
    (same start time): a number that was given to another program since is left alone. Returns
    the ids of the killed processes.
    """
    sessions: dict[int, str] = {}
    for record in records.glob("*") if records.is_dir() else ():
        if record.name.isdigit():
            sessions[int(record.name)] = record.read_text()
    killed = []
    for pid, session in _sessions() if sessions else ():
        if session not in sessions:
            continue
        leader = _start_time(session)
        if leader in {None, sessions[session]}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    for session in sessions:
        (records / str(session)).unlink(missing_ok=True)
    return killed


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on (proc(5)); the second may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """Clock ticks since boot at which the process started (field 22)."""
    stat = _stat(pid)
    return None if stat is None else stat[19]


def _sessions() -> list[tuple[int, int]]:
    """(process, session) of everything that runs; the session is field 6."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [(pid, int(stat[3])) for pid in pids if (stat := _stat(pid)) is not None]
