"""The commands: up, down, status, exec."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from support.cluster.client import ClusterClient
from support.cluster.guardian import ALREADY_RUNNING, owner_of
from support.cluster.layout import STATE_VARIABLE, Layout, clusters_folder, default_state_dir
from support.cluster.process import die_with_parent, start_time, wait_gone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STOP_S: Final = 90.0
_KEPT_LOGS: Final = 3
_YOUNG_S: Final = 600.0
_COMMAND_NOT_FOUND: Final = 127


def up(layout: Layout, without: Sequence[str]) -> int:
    """Start a cluster that outlives this command, and return when it is ready."""
    if owner_of(layout) is not None and layout.document.exists():
        _say(f"already up: {layout.state_dir}")
        return 0
    code = _start(layout, without, dies_with_us=False)
    if code == 0:
        # On stdout, for `eval "$(python -m support.cluster up)"`.
        print(f"export {STATE_VARIABLE}={layout.state_dir}")
        print(f"export KUBECONFIG={layout.kubeconfig('admin')} PATH={layout.bin}:$PATH")
    return code


def down(layout: Layout) -> int:
    """Stop a cluster; nothing to stop is no error."""
    owner = owner_of(layout)
    if owner is None:
        _say(f"not up: {layout.state_dir}")
        return 0
    os.kill(owner["pid"], signal.SIGTERM)
    if wait_gone(owner["pid"], owner["start_time"], _STOP_S):
        _say("stopped")
        return 0
    _say(f"process {owner['pid']} has not ended within {_STOP_S:.0f} s; logs: {layout.logs}")
    return 1


def status(layout: Layout) -> int:
    """Print each process with its state. Exit code 0 when the cluster is ready."""
    owner = owner_of(layout)
    if owner is None:
        print(f"not up: {layout.state_dir}")
        return 1
    ready = layout.document.exists()
    print(f"{layout.state_dir}: {'ready' if ready else 'starting or stopping'}")
    print(f"{'PROCESS':<26}{'STATE':<10}{'PID':>8}{'RESTARTS':>10}{'MEMORY':>10}")
    states: dict[str, dict[str, Any]] = json.loads(layout.status.read_text())
    for name, state in states.items():
        pid = state["pid"]
        alive = pid is not None and start_time(pid) is not None
        word = ("ready" if state["ready"] else "starting") if alive else "down"
        memory = f"{_resident_mib(pid)} MiB" if alive else "-"
        print(f"{name:<26}{word:<10}{pid or '-':>8}{state['restarts']:>10}{memory:>10}")
    return 0 if ready else 1


def execute(command: Sequence[str], without: Sequence[str]) -> int:
    """Run a command on a cluster: on the one of $INFERENCE_ROLLOUTS_CLUSTER, else on a new one.

    A new one is stopped afterwards, and removed; its logs are kept when the command failed.
    Returns the command's exit code, 128 + n when signal n ended it.
    """
    if os.environ.get(STATE_VARIABLE):
        return _run(command, ClusterClient.load())
    _forget_old_runs()
    layout = Layout(clusters_folder() / f"exec-{secrets.token_hex(3)}")
    code = 1
    with _ignoring_interrupts():
        try:
            code = _start(layout, without, dies_with_us=True)
            if code == 0:
                code = _run(command, ClusterClient.load(layout.state_dir))
        finally:
            if owner_of(layout) is not None:
                down(layout)
            if code == 0:
                shutil.rmtree(layout.state_dir, ignore_errors=True)
                layout.lock.unlink(missing_ok=True)
            else:
                _say(f"logs are kept in {layout.logs}")
    return code


def _start(layout: Layout, without: Sequence[str], *, dies_with_us: bool) -> int:
    layout.prepare()
    log = layout.state_dir.with_name(f"{layout.state_dir.name}.log")
    from support.toolchain import ensure  # noqa: PLC0415 - down and status need no toolchain

    # Here, not in the background, for the builds' progress is to be seen.
    ensure(without=["bridge"] if "bridge" in without else [])
    reader, writer = os.pipe()
    argv = [sys.executable, "-m", "support.cluster", "guard", "--report", str(writer)]
    argv += ["--state-dir", str(layout.state_dir)]
    argv += [f"--without={name}" for name in without]
    if dies_with_us:
        argv += ["--dies-with", str(os.getpid())]
    with log.open("wb") as output:
        guardian = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[writer],
            start_new_session=True,
        )
    os.close(writer)
    try:
        return _follow(reader, guardian, log)
    except BaseException:
        guardian.terminate()
        guardian.wait()
        raise


def _follow(reader: int, guardian: subprocess.Popen[bytes], log: Path) -> int:
    with os.fdopen(reader) as news:
        for line in news:
            event = json.loads(line)
            match event["event"]:
                case "ready":
                    _say(f"  {event['name']} ready after {event['seconds']:.1f} s")
                case "up":
                    _say(f"cluster ready after {event['seconds']:.1f} s")
                    return 0
                case "failed":
                    _say(f"the cluster could not start: {event['error']}")
                    guardian.wait()
                    return 1
                case _:
                    pass
    code = guardian.wait()
    if code == ALREADY_RUNNING:
        _say("the cluster is starting or stopping in another process; try again")
        return ALREADY_RUNNING
    _say(f"the cluster ended while it started (exit code {code}); see {log}")
    return code or 1


def _run(command: Sequence[str], cluster: ClusterClient) -> int:
    environment = cluster.environment()
    program = shutil.which(command[0], path=environment["PATH"])
    if program is None:
        _say(f"{command[0]}: command not found")
        return _COMMAND_NOT_FOUND
    parent = os.getpid()
    child = subprocess.Popen(
        [program, *command[1:]],
        env=environment,
        # In our process group, for Ctrl-C; when we are killed, the command ends with the cluster.
        preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),  # noqa: PLW1509
    )
    with _passing_on(signal.SIGTERM, child):
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Leave Ctrl-C to the command, which gets it too, and raise only when there is none."""
    # SIGTERM and SIGHUP end this process by an exception, so that the cluster is stopped.
    previous = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _passing_on(number: int, child: subprocess.Popen[bytes]) -> Iterator[None]:
    def pass_on(received: int, _frame: object) -> None:
        child.send_signal(received)

    previous = signal.signal(number, pass_on)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, previous)
        signal.signal(signal.SIGINT, interrupt)


def _forget_old_runs() -> None:
    """Remove the directories of failed ``exec`` runs, but for the latest few."""
    found = sorted(clusters_folder().glob("exec-*/"), key=lambda folder: folder.stat().st_mtime)
    for folder in found[:-_KEPT_LOGS]:
        layout = Layout(folder)
        # A young one may be of a cluster that is just being started.
        young = time.time() - folder.stat().st_mtime < _YOUNG_S
        if owner_of(layout) is None and not young:
            shutil.rmtree(folder, ignore_errors=True)
            layout.lock.unlink(missing_ok=True)
            folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)


def _resident_mib(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def state_dir_of(named: str | None) -> Path:
    """Return the state directory to use for a ``--state-dir`` option."""
    return Path(named).resolve() if named else default_state_dir()
