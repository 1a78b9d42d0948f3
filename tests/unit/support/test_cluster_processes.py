"""Processes are restarted while the cluster is up, and none of them outlives it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from support.cluster.component import Component
from support.cluster.guardian import clean_up, owner_of
from support.cluster.layout import RUN_VARIABLE, Layout
from support.cluster.probe import until
from support.cluster.process import marked, start_time, wait_gone
from support.cluster.supervisor import ClusterError, Supervisor
from support.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ENVIRONMENT = {"PATH": os.defpath}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "state")
    for folder in found.folders():
        folder.mkdir(parents=True, exist_ok=True)
    return found


def ready_when(path: Path) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return os.access(path, os.F_OK)

    return probe


def component(layout: Layout, script: str, **changes: object) -> Component:
    """A shell that runs ``script``; it is ready once the script touches a file called ready."""
    fields: dict[str, object] = {
        "name": "part",
        "argv": ("sh", "-c", script),
        "cwd": layout.state_dir,
        "ready": ready_when(layout.state_dir / "ready"),
        **changes,
    }
    return Component(**fields)  # type: ignore[arg-type]


def supervisor(layout: Layout) -> Supervisor:
    return Supervisor(layout, ENVIRONMENT, lambda _name, _seconds: None)


async def test_a_process_that_is_killed_comes_back(layout: Layout) -> None:
    running = supervisor(layout)
    await running.start(component(layout, "touch ready; exec sleep 600"))
    first = int(layout.pid_file("part").read_text())
    os.kill(first, signal.SIGKILL)

    async def another() -> bool:
        status = json.loads(layout.status.read_text())["part"]
        return bool(status["restarts"] == 1 and status["pid"] not in {None, first})

    assert await until(another, 30)
    second = int(layout.pid_file("part").read_text())
    assert start_time(second) is not None
    await running.stop()
    assert start_time(second) is None
    assert not layout.pid_file("part").exists()


async def test_processes_stop_in_reverse_order(layout: Layout) -> None:
    running = supervisor(layout)
    for name in ("first", "second"):
        script = (
            f"trap 'echo {name} >> order; exit 0' TERM; touch {name}; while :; do sleep .02; done"
        )
        ready = ready_when(layout.state_dir / name)
        await running.start(component(layout, script, name=name, ready=ready))
    await running.stop()
    assert (layout.state_dir / "order").read_text().split() == ["second", "first"]


async def test_a_process_that_ignores_its_signal_is_killed_with_its_group(layout: Layout) -> None:
    running = supervisor(layout)
    script = "trap '' TERM; sleep 600 & echo $! > child; touch ready; while :; do sleep 1; done"
    await running.start(component(layout, script, stop_s=0.1))
    child = int((layout.state_dir / "child").read_text())
    await running.stop()

    async def gone() -> bool:
        return start_time(child) is None

    assert await until(gone, 10)


async def test_a_process_that_keeps_dying_is_reported_with_its_last_words(layout: Layout) -> None:
    running = supervisor(layout)
    with pytest.raises(ClusterError) as caught:
        await running.start(component(layout, "echo 'no such flag'; exit 3"))
    assert "part died 5 times before it was ready (exit codes [3, 3, 3, 3, 3])" in str(caught.value)
    assert "no such flag" in str(caught.value)
    await running.stop()


async def test_a_process_that_never_serves_is_reported(layout: Layout) -> None:
    running = supervisor(layout)
    with pytest.raises(ClusterError, match="part was not ready within 0 s"):
        await running.start(component(layout, "exec sleep 600", patience_s=0))
    await running.stop()


def test_children_die_with_a_supervisor_that_is_killed() -> None:
    program = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
from pathlib import Path
from support.cluster.process import spawn
environment = {{"PATH": {os.defpath!r}}}
child = spawn(["sleep", "600"], env=environment, cwd=Path("/"), log=Path("/dev/null"))
print(child.pid, flush=True)
child.wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        started = start_time(child)
        assert started is not None
        parent.kill()
    assert wait_gone(child, started, 10)


def test_orphans_of_the_supervisor_are_killed_too() -> None:
    # The middle process dies and leaves a grandchild, as the controller does with its plugin.
    program = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
import subprocess
from support.cluster.process import adopt_orphans, children, kill_descendants
import os
adopt_orphans()
subprocess.run(["sh", "-c", "setsid sleep 600 & echo $!"])
kill_descendants()
assert children(os.getpid()) == []
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert start_time(int(done.stdout)) is None


def test_what_a_killed_cluster_left_is_found_by_its_run_and_nothing_else_is_touched(
    layout: Layout,
) -> None:
    def sleeper(run: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(["sleep", "600"], env={**ENVIRONMENT, RUN_VARIABLE: run})
        # Between fork and exec it still has our environment.
        while not list(marked(RUN_VARIABLE, run)):
            pass
        return child

    ours, others = sleeper("the-run-that-died"), sleeper("another-run")
    try:
        owner = {"pid": 2**22 - 1, "start_time": 1, "run": "the-run-that-died"}
        layout.owner.write_text(json.dumps(owner))
        layout.status.write_text("{}")
        assert owner_of(layout) is None
        assert clean_up(layout) == [ours.pid]
        assert ours.wait(10) == -signal.SIGKILL
        assert others.poll() is None
        assert [path.name for path in layout.state_dir.iterdir()] == ["status.json"]
    finally:
        for child in (ours, others):
            child.kill()
            child.wait()


def test_a_directory_that_is_no_clusters_is_never_wiped(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not empty and not a cluster's"):
        clean_up(Layout(tmp_path))
    assert (tmp_path / "thesis.tex").exists()


def test_a_process_with_a_reused_id_is_not_taken_for_the_owner(layout: Layout) -> None:
    own = start_time(os.getpid())
    assert own is not None
    for started, expected in ((own, True), (own - 1, False)):
        owner = {"pid": os.getpid(), "start_time": started, "run": "x"}
        layout.owner.write_text(json.dumps(owner))
        assert (owner_of(layout) is not None) is expected


def test_start_times_are_those_of_the_process_table() -> None:
    ticks = start_time(os.getpid())
    assert ticks is not None
    seconds = ticks / os.sysconf("SC_CLK_TCK") + psutil.boot_time()
    assert seconds == pytest.approx(psutil.Process().create_time(), abs=1.5)


async def test_a_probe_that_raises_means_not_yet() -> None:
    answers = iter([None, False, True])

    async def probe() -> bool:
        answer = next(answers)
        await asyncio.sleep(0)
        if answer is None:
            raise ConnectionRefusedError
        return answer

    assert await until(probe, 30)
