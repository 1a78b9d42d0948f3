"""However a cluster ends, nothing of it is left. Each case starts a small one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from support.cluster.layout import RUN_VARIABLE, STATE_VARIABLE, Layout
from support.cluster.process import marked
from support.cluster.run import OPTIONAL
from support.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = [f"--without={part}" for part in OPTIONAL]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "support.cluster", *args]


def environment() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in {STATE_VARIABLE, RUN_VARIABLE}}
    return {**inherited, "PYTHONPATH": str(ROOT / "tests")}


@contextmanager
def running(state_dir: Path) -> Iterator[Layout]:
    """Run the command `up`, and whatever the test does, `down`."""
    up = command("up", "--state-dir", str(state_dir), *SMALL)
    subprocess.run(up, env=environment(), check=True)
    try:
        yield Layout(state_dir)
    finally:
        down = command("down", "--state-dir", str(state_dir))
        subprocess.run(down, env=environment(), check=True)


def processes(layout: Layout) -> list[psutil.Process]:
    """Guardian, supervisor, components: whoever has the run's id in its environment."""
    owner = json.loads(layout.owner.read_text())
    guardian = psutil.Process(owner["pid"])
    found = [guardian, *guardian.children(recursive=True)]
    assert set(marked(RUN_VARIABLE, owner["run"])) <= {process.pid for process in found}
    return found


def gone(found: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(found, timeout=180)
    return not alive


@pytest.mark.parametrize("who", ["guardian", "supervisor"])
def test_nothing_is_left_when_one_of_the_two_in_charge_is_killed(who: str, tmp_path: Path) -> None:
    with running(tmp_path / "state") as layout:
        found = processes(layout)
        names = {process.name() for process in found}
        assert {"etcd", "kube-apiserver", "kube-controller-manager"} <= names
        found[0 if who == "guardian" else 1].kill()
        assert gone(found)


def test_a_cluster_whose_two_processes_were_killed_can_be_started_again(tmp_path: Path) -> None:
    with running(tmp_path / "state") as layout:
        found = processes(layout)
        for process in found[:2]:
            process.suspend()  # neither may act on the other's death
        for process in found[:2]:
            process.kill()
        assert gone(found)
        with running(tmp_path / "state"):
            assert layout.document.exists()
            again = processes(layout)
        assert gone(again)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: str(n.name))
def test_exec_ends_its_cluster_with_its_command(number: signal.Signals) -> None:
    script = f"printenv {STATE_VARIABLE}; exec sleep 600"
    run = subprocess.Popen(
        command("exec", *SMALL, "--", "sh", "-c", script),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A job that a shell runs in the background ignores SIGINT and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert run.stdout is not None
    found = processes(Layout(Path(run.stdout.readline().strip())))
    # A terminal sends Ctrl-C to the whole group, an init system SIGTERM to one process.
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    assert run.wait(240) == 128 + number
    run.stdout.close()
    assert gone(found)
