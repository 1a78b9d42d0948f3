"""Children that never outlive their parent, and proofs of who a process is."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: int, parent: int) -> None:
    """Have the kernel send us a signal when our parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call took effect
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent dies (PR_SET_CHILD_SUBREAPER)."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(
    argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a child in its own session; it gets SIGKILL when this process dies."""
    parent = os.getpid()

    def before_exec() -> None:
        die_with_parent(signal.SIGKILL, parent)

    with log.open("ab") as output:
        return subprocess.Popen(
            [os.fspath(part) for part in argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Safe between fork and exec: the hook is two system calls and takes no lock.
            preexec_fn=before_exec,  # noqa: PLW1509
        )


def start_time(pid: int) -> int | None:
    """Start of a process in clock ticks since boot (proc(5), stat field 22); None if gone.

    With the pid it names a process for ever: pids are reused, pairs are not. A zombie is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command, in parentheses, may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def environment_has(pid: int, variable: str, value: str) -> bool:
    """Whether a process was started with this environment variable."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{variable}={value}".encode() in environment.split(b"\0")


def marked(variable: str, value: str) -> Iterator[int]:
    """Yield the processes, other than this one, that carry an environment variable."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            pid = int(entry.name)
            if environment_has(pid, variable, value):
                yield pid


def children(pid: int) -> list[int]:
    """Return the direct children of a process, zombies included."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def kill_descendants() -> None:
    """SIGKILL every descendant of this process and reap them. Needs ``adopt_orphans``."""
    # Killing a parent hands its children to us: the loop ends when there are none left.
    while mine := children(os.getpid()):
        for pid in mine:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in mine:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def on_signals(numbers: Sequence[int], call: Callable[[int], None]) -> None:
    """Call back on these signals."""
    for number in numbers:
        signal.signal(number, lambda received, _frame: call(received))


def wait_gone(pid: int, started: int, timeout_s: float) -> bool:
    """Wait until a process, child or not, is gone; False after the timeout."""
    import select  # noqa: PLC0415 - only the command that stops a cluster waits

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if start_time(pid) != started:
            return True
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        return bool(ready)
    finally:
        os.close(descriptor)


def require_linux() -> None:
    """Raise where the kernel's means that keep the machine clean don't exist."""
    if sys.platform != "linux":
        raise OSError(f"the local cluster needs Linux, this is {sys.platform}")
