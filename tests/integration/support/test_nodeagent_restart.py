"""A node agent that is killed and started again, on a node that only this test uses."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from inference_common.kube import NODE, POD
from support.scenario import is_ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.scenario import Scenario

Object = dict[str, Any]
# Outside of the networks that clusters claim (support.cluster.network).
NETWORK = "127.250.0.0/16"


class Agent:
    """A node agent process of this test's own."""

    def __init__(self, scenario: Scenario, state_dir: Path) -> None:
        self.name = f"own-{secrets.token_hex(3)}"
        self.node = f"{self.name}-1"
        self._kubeconfig = scenario.cluster.document["kubeconfigs"]["node-agent"]
        self._state_dir = state_dir
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "support.nodeagent", "--kubeconfig", self._kubeconfig),
            *("--network", NETWORK, "--state-dir", str(self._state_dir), "--name", self.name),
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        return self

    async def stop(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()


@pytest.fixture
async def agent(scenario: Scenario, tmp_path: Path) -> AsyncIterator[Agent]:
    found = Agent(scenario, tmp_path)
    # Cordoned, so that this agent binds nobody else's pods.
    await scenario.kube.create(
        NODE, {"metadata": {"name": found.node}, "spec": {"unschedulable": True}}
    )
    try:
        yield await found.start()
    finally:
        await found.stop(signal.SIGKILL)
        await scenario.kube.delete(NODE, found.node)


def pod(name: str, agent: Agent, container: Object, policy: str = "Always") -> Object:
    spec = {"nodeName": agent.node, "containers": [container], "restartPolicy": policy}
    return {"metadata": {"name": name}, "spec": spec | {"terminationGracePeriodSeconds": 2}}


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def status_of(obj: Object) -> Object:
    found: Object = obj["status"]["containerStatuses"][0]
    return found


SLEEP = {"name": "m", "image": "any", "command": ["sleep", "1000"]}
NOOP = {"name": "m", "image": "inference-rollouts/noop:1"}


async def test_lost_containers_are_restarted_as_after_a_reboot(
    scenario: Scenario, agent: Agent
) -> None:
    async def until(name: str, what: str, predicate: Any) -> Object:
        return await scenario.until(
            POD, name, lambda obj: obj is not None and predicate(obj), what=what
        )

    pods = {
        "always": pod("always", agent, SLEEP),
        "never": pod("never", agent, SLEEP, "Never"),
        "noop": pod("noop", agent, NOOP),
        "deleted": pod("deleted", agent, SLEEP),
    }
    for one in pods.values():
        await scenario.kube.create(POD, one, scenario.namespace)
    before = {name: await until(name, "ready", is_ready) for name in pods}
    await agent.stop(signal.SIGKILL)
    await scenario.kube.delete(POD, "deleted", scenario.namespace)
    await agent.start()

    again = await until(
        "always", "a restart", lambda obj: status_of(obj)["restartCount"] == 1 and is_ready(obj)
    )
    assert status_of(again)["lastState"]["terminated"]["exitCode"] == 255
    assert again["status"]["podIP"] == before["always"]["status"]["podIP"]
    await until("never", "Failed", lambda obj: obj["status"]["phase"] == "Failed")
    await scenario.until(POD, "deleted", lambda obj: obj is None, what="gone")
    noop = await scenario.get(POD, "noop")
    assert is_ready(noop)
    assert status_of(noop) == status_of(before["noop"]), "a no-op container loses nothing"

    await scenario.kube.create(POD, pod("new", agent, NOOP), scenario.namespace)
    new = await until("new", "ready", is_ready)
    assert new["status"]["podIP"] not in {one["status"]["podIP"] for one in before.values()}


async def test_an_agent_that_is_stopped_takes_its_containers_along(
    scenario: Scenario, agent: Agent, tmp_path: Path
) -> None:
    await scenario.kube.create(POD, pod("a", agent, SLEEP), scenario.namespace)
    await scenario.until(POD, "a", lambda obj: obj is not None and is_ready(obj), what="ready")
    records = tmp_path / "node-agent" / "processes"
    pids = [int(path.name) for path in records.iterdir()]
    assert len(pids) == 1
    await agent.stop(signal.SIGTERM)
    assert not runs(pids[0])
    assert list(records.iterdir()) == []
    assert is_ready(await scenario.get(POD, "a")), "the pod stays as it is on the API server"
    await scenario.kube.delete(POD, "a", scenario.namespace, grace_period_s=0)
