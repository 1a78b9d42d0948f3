"""Containers as real processes: they end completely, and never outlive their node agent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from support.nodeagent.commands import Launch, Place, launch_of
from support.nodeagent.containers import ContainerRecord, Running, Terminated, new_record
from support.nodeagent.environment import ConfigError
from support.nodeagent.probing import Prober
from support.nodeagent.processes import Process, ProcessSpec, ProcessStartError, sweep
from support.nodeagent.runners import ContainerRunner, RunnerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

LIMIT_S = 120.0


def spec(tmp_path: Path, *argv: str) -> ProcessSpec:
    return ProcessSpec(
        argv=argv, env={"PATH": os.defpath}, cwd=tmp_path, log=tmp_path / "process.log"
    )


async def until(condition: Callable[[], object]) -> None:
    """Files and processes cannot be awaited: look again until they are as expected."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def shell(tmp_path: Path, script: str) -> Process:
    return Process.start(spec(tmp_path, "sh", "-c", script), tmp_path / "processes")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -signal.SIGKILL)]
)
async def test_the_return_code_is_known(tmp_path: Path, script: str, code: int) -> None:
    assert await shell(tmp_path, script).wait() == code
    assert list((tmp_path / "processes").iterdir()) == []


async def test_output_goes_to_the_log(tmp_path: Path) -> None:
    await shell(tmp_path, "echo out; echo err >&2").wait()
    await shell(tmp_path, "echo again").wait()
    assert (tmp_path / "process.log").read_text() == "out\nerr\nagain\n"


async def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessStartError, match='"no-such-program": program not found'):
        Process.start(spec(tmp_path, "no-such-program"), tmp_path / "processes")


async def test_what_a_container_started_ends_with_it(tmp_path: Path) -> None:
    process = shell(tmp_path, "sleep 1000 & echo $! > child; exit 0")
    assert await process.wait() == 0
    child = int((tmp_path / "child").read_text())
    await until(lambda: not _alive(child))


async def test_a_container_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = shell(tmp_path, "trap '' TERM; touch ready; while :; do sleep 0.1; done")
    await until((tmp_path / "ready").exists)
    assert await process.stop(grace_s=0.2) == -signal.SIGKILL


async def test_a_container_that_heeds_sigterm_ends_by_itself(tmp_path: Path) -> None:
    process = shell(tmp_path, "trap 'exit 3' TERM; touch ready; while :; do sleep 0.1; done")
    await until((tmp_path / "ready").exists)
    assert await process.stop(grace_s=LIMIT_S) == 3


AGENT = """
import asyncio, sys
from pathlib import Path
from support.nodeagent.processes import Process, ProcessSpec

async def main():
    here = Path(sys.argv[1])
    spec = ProcessSpec(
        argv=("sh", "-c", "echo $$ > leader; sleep 1000 & echo $! > child; wait"),
        env={"PATH": "/usr/bin:/bin"}, cwd=here, log=here / "log",
    )
    await Process.start(spec, here / "processes").wait()

asyncio.run(main())
"""


async def test_nothing_outlives_a_killed_agent_and_its_successor(tmp_path: Path) -> None:
    """The kernel kills the first process of a container, the next agent what that one started."""
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGENT, str(tmp_path)),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    await until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    leader, child = (int((tmp_path / name).read_text()) for name in ("leader", "child"))
    # The agent may be slower than what it has started.
    record = tmp_path / "processes" / str(leader)
    await until(lambda: record.exists() and record.read_text())
    agent.kill()
    await agent.wait()
    await until(lambda: not _alive(leader))
    assert _alive(child)
    assert child in sweep(tmp_path / "processes")
    await until(lambda: not _alive(child))
    assert sweep(tmp_path / "processes") == []


def test_a_number_that_another_program_has_by_now_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as other:
        (tmp_path / str(other.pid)).write_text("1")  # another start time
        assert sweep(tmp_path) == []
        assert other.poll() is None
        other.kill()


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Pod:
    """Surroundings of a container: a place to live, and a memory of what was told."""

    def __init__(self, directory: Path) -> None:
        self.place = Place(
            directory=directory, volumes={}, kubeconfig=None, services={}, allocatable={}
        )
        self.records: list[ContainerRecord] = []
        self.events: list[tuple[str, str]] = []
        self.trouble: list[Exception] = []
        self.news = asyncio.Event()

    async def launch(self, container: Mapping[str, Any]) -> Launch:
        if self.trouble:
            raise self.trouble.pop()
        pod = {"metadata": {"name": "p", "namespace": "ns"}, "spec": {}, "status": {}}
        return launch_of(pod, container, {}, self.place)

    def changed(self, record: ContainerRecord) -> None:
        self.records.append(record)
        self.news.set()

    def event(self, kind: str, reason: str, message: str, container: str) -> None:  # noqa: ARG002
        self.events.append((reason, message))
        self.news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self.news.clear()
                await self.news.wait()

    @property
    def now(self) -> ContainerRecord:
        return self.records[-1]


class Containers:
    """Starts runners and stops them all at the end of a test."""

    def __init__(self, prober: Prober, directory: Path) -> None:
        self.pod = Pod(directory)
        self._prober = prober
        self._directory = directory
        self._running: list[tuple[ContainerRunner, asyncio.Task[int]]] = []

    def start(
        self, script: str, policy: str = "Always", **more: Any
    ) -> tuple[ContainerRunner, asyncio.Task[int]]:
        container = {"name": "m", "image": "x", "command": ["sh", "-c", script], **more}
        settings = RunnerSettings(
            container=container,
            policy=policy,
            address="127.0.0.1",
            grace_s=LIMIT_S,
            records=self._directory / "processes",
            backoff=lambda _waited, _ran: 0.01,
        )
        record = new_record(container, "ContainerCreating")
        runner = ContainerRunner(settings, record, self.pod, self._prober)
        self._running.append((runner, asyncio.create_task(runner.run())))
        return self._running[-1]

    async def stop(self) -> None:
        for runner, task in self._running:
            runner.kill()
            await asyncio.wait({task}, timeout=LIMIT_S)


@pytest.fixture
async def containers(tmp_path: Path) -> AsyncIterator[Containers]:
    async with Prober() as prober:
        found = Containers(prober, tmp_path)
        yield found
        await found.stop()


FOREVER = "exec sleep 1000"


async def test_a_container_without_probes_is_ready_at_once(containers: Containers) -> None:
    containers.start(FOREVER)
    await containers.pod.until(lambda: containers.pod.records)
    assert containers.pod.records[0].ready


@pytest.mark.parametrize(("policy", "code"), [("Never", 3), ("OnFailure", 0)])
async def test_a_container_ends_for_good(containers: Containers, policy: str, code: int) -> None:
    _, task = containers.start(f"exit {code}", policy)
    assert await task == code
    assert isinstance(containers.pod.now.state, Terminated)
    assert containers.pod.now.state.exit_code == code


async def test_a_failing_container_is_restarted_with_back_off(containers: Containers) -> None:
    containers.start("exit 1")
    pod = containers.pod
    await pod.until(lambda: pod.records and pod.now.restarts == 2)
    assert pod.now.last is not None
    assert pod.now.last.exit_code == 1
    assert "CrashLoopBackOff" in {getattr(one.state, "reason", "") for one in pod.records}
    assert pod.events[0] == ("BackOff", "back-off 0 s restarting failed container m")


async def test_a_readiness_probe_turns_both_ways(containers: Containers, tmp_path: Path) -> None:
    probe = {
        "exec": {"command": ["test", "-e", str(tmp_path / "ok")]},
        "periodSeconds": 0.02,
        "timeoutSeconds": 10,
        "failureThreshold": 1,
    }
    containers.start(FOREVER, readinessProbe=probe)
    pod = containers.pod
    await pod.until(lambda: pod.events)
    assert not pod.now.ready
    (tmp_path / "ok").touch()
    await pod.until(lambda: pod.now.ready)
    (tmp_path / "ok").unlink()
    await pod.until(lambda: not pod.now.ready)
    assert [type(one.state) for one in pod.records] == [Running] * len(pod.records)


async def test_other_probes_wait_for_the_startup_probe(
    containers: Containers, tmp_path: Path
) -> None:
    startup = {
        "exec": {"command": ["test", "-e", str(tmp_path / "up")]},
        "periodSeconds": 0.02,
        "timeoutSeconds": 10,
        "failureThreshold": 1000,
    }
    liveness = {"exec": {"command": ["touch", str(tmp_path / "asked")]}, "timeoutSeconds": 10}
    runner, _ = containers.start(FOREVER, startupProbe=startup, livenessProbe=liveness)
    pod = containers.pod
    await pod.until(lambda: pod.events)
    assert not any(one.started or one.ready for one in pod.records)
    assert not (tmp_path / "asked").exists()
    (tmp_path / "up").touch()
    async with asyncio.timeout(LIMIT_S):
        await runner.started.wait()
    assert pod.now.ready
    await until((tmp_path / "asked").exists)


async def test_a_failed_liveness_probe_restarts_the_container(containers: Containers) -> None:
    probe = {
        "exec": {"command": ["false"]},
        "periodSeconds": 0.02,
        "timeoutSeconds": 10,
        "failureThreshold": 2,
    }
    containers.start(FOREVER, livenessProbe=probe)
    pod = containers.pod
    await pod.until(lambda: pod.records and pod.now.restarts == 1)
    assert pod.now.last is not None
    assert pod.now.last.exit_code == 128 + signal.SIGTERM
    assert [reason for reason, _ in pod.events][:3] == ["Unhealthy", "Unhealthy", "Killing"]


async def test_a_stopped_container_runs_its_hook_first_and_is_not_restarted(
    containers: Containers, tmp_path: Path
) -> None:
    hook = {"preStop": {"exec": {"command": ["cp", str(tmp_path / "up"), str(tmp_path / "hook")]}}}
    script = f"trap 'cp {tmp_path}/hook {tmp_path}/end; exit 5' TERM; touch {tmp_path}/up;"
    runner, task = containers.start(script + "while :; do sleep 0.05; done", lifecycle=hook)
    await until((tmp_path / "up").exists)
    await runner.stop(LIMIT_S)
    assert await task == 5
    assert (tmp_path / "end").exists(), "the hook ran before SIGTERM"


async def test_a_container_is_held_back_until_its_references_are_there(
    containers: Containers,
) -> None:
    pod = containers.pod
    pod.trouble = [ConfigError('ConfigMap "c" not found')]
    containers.start(FOREVER)
    await pod.until(lambda: pod.records and isinstance(pod.now.state, Running))
    assert getattr(pod.records[0].state, "reason", "") == "CreateContainerConfigError"
    assert pod.events == [("Failed", 'Error: ConfigMap "c" not found')]
    assert pod.now.restarts == 0


async def test_a_container_that_is_held_back_can_be_stopped(containers: Containers) -> None:
    pod = containers.pod
    pod.trouble = [ConfigError("x")] * 1000
    runner, task = containers.start(FOREVER)
    await pod.until(lambda: pod.records)
    await runner.stop(LIMIT_S)
    assert await task == 0


async def test_a_program_that_is_missing_is_a_start_error(containers: Containers) -> None:
    _, task = containers.start("", "Never", command=["/no/such/program"])
    assert await task == 128
    assert isinstance(containers.pod.now.state, Terminated)
    assert containers.pod.now.state.reason == "StartError"
    assert "/no/such/program" in containers.pod.now.state.message
