"""The process above the supervisor: whatever happens to that one, nothing is left behind.

Two processes watch each other. The supervisor's children die with it by PR_SET_PDEATHSIG; what
those had started themselves (plugins of the controller, containers of pods) becomes the
guardian's, which kills it. When the guardian is killed, the supervisor gets SIGTERM. Only when
both are killed at once can a grandchild survive, and the next start finds that by the run's id
in its environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from support.cluster.layout import RUN_VARIABLE, Layout
from support.cluster.process import (
    adopt_orphans,
    die_with_parent,
    kill_descendants,
    marked,
    start_time,
)

if TYPE_CHECKING:
    from collections.abc import Collection

ALREADY_RUNNING: Final = 3


def guard(layout: Layout, without: Collection[str], report: int) -> int:
    """Run a cluster in a child until it ends; ``report`` is a file descriptor for its news.

    Returns the child's exit code, ALREADY_RUNNING when the state directory is in use.
    """
    adopt_orphans()
    with layout.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ALREADY_RUNNING
        clean_up(layout)
        run_id = uuid.uuid4().hex
        _take_over(layout, run_id)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            # The lock stays open here: the cluster is up for as long as either process lives.
            die_with_parent(signal.SIGTERM, parent)
            os._exit(_supervise(layout, run_id, without, report))
        os.close(report)
        code = _wait(child)
        kill_descendants()
        layout.owner.unlink(missing_ok=True)
        return code


def owner_of(layout: Layout) -> dict[str, Any] | None:
    """``{"pid", "start_time", "run"}`` of the guardian that lives, else None."""
    found = _recorded(layout)
    if found is None or start_time(found["pid"]) != found["start_time"]:
        return None
    return found


def clean_up(layout: Layout) -> list[int]:
    """Kill what a killed cluster left running, and wipe its directory. Needs the lock.

    Only processes that carry that run's id in their environment are touched. Returns them.
    """
    left: list[int] = []
    recorded = _recorded(layout)
    if recorded is not None:
        left = list(marked(RUN_VARIABLE, recorded["run"]))
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    layout.wipe()
    return left


def _recorded(layout: Layout) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(layout.owner.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found


def _take_over(layout: Layout, run_id: str) -> None:
    owner = {"pid": os.getpid(), "start_time": start_time(os.getpid()), "run": run_id}
    layout.owner.write_text(json.dumps(owner))


def _supervise(layout: Layout, run_id: str, without: Collection[str], report: int) -> int:
    # Imported after the fork: the guardian stays small.
    from support.cluster.run import run  # noqa: PLC0415

    try:
        with os.fdopen(report, "w") as stream:
            return run(layout, run_id, without, stream)
    except BaseException:  # noqa: BLE001 - the process ends here, its log says why
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _wait(child: int) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: _pass_on(child))
    while True:
        pid, status = os.waitpid(-1, 0)  # orphans are reaped on the way
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _pass_on(child: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGTERM)
