"""The bridge as it is shipped: the static binary, driven as a process.

What it forwards is tested beside it in Go, over Argo's own client (plugin/bridge/*_test.go); these
tests are about the file and the process that the controller's image gets.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest

from inference_plugin._pb import traffic_router_pb2, traffic_router_pb2_grpc
from support.toolchain import ensure
from support.toolchain.recipe import RECIPES

# argo-rollouts v1.10.2, rollout/trafficrouting/plugin/client/client.go:25-29.
CONTROLLER = {"ARGO_ROLLOUTS_RPC_PLUGIN": "trafficrouter"}


@pytest.fixture(scope="module")
def bridge() -> Path:
    others = [recipe.name for recipe in RECIPES if recipe.name != "bridge"]
    return ensure(without=others).binary("bridge")


@contextmanager
def running(bridge: Path, socket: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, started as the controller does, after its go-plugin handshake."""
    process = subprocess.Popen(
        [bridge, "--server", f"unix:{socket}"],
        env=os.environ | CONTROLLER,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        # go-plugin's handshake: core version, plugin's version, network, address, protocol.
        assert re.match(r"1\|1\|unix\|[^|]+\|netrpc\|", process.stdout.readline())
        yield process
    finally:
        process.kill()
        process.communicate()


def test_run_by_hand_it_says_what_it_is(bridge: Path) -> None:
    done = subprocess.run([bridge], capture_output=True, text=True, check=True)
    assert "A plugin of the Argo Rollouts controller" in done.stderr
    assert "trafficRouterPlugins" in done.stderr
    assert "-server" in done.stderr
    assert done.stdout == ""


def test_run_by_hand_with_a_bad_server_it_says_what_is_wrong(bridge: Path) -> None:
    done = subprocess.run(
        [bridge, "--server", "dns:///plugin.example:443"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "neither unix:PATH nor a loopback address" in done.stderr


def test_the_file_is_static_and_under_30_megabytes(bridge: Path) -> None:
    size = bridge.stat().st_size
    print(f"bridge: {size / 1e6:.1f} MB")
    assert size < 30e6
    # The controller's image has no C library: an ELF file without an interpreter needs none.
    assert b"/lib64/ld-linux" not in bridge.read_bytes()


def test_it_starts_without_a_server_and_stays_small(bridge: Path, tmp_path: Path) -> None:
    with running(bridge, tmp_path / "absent.sock") as process:
        resident = psutil.Process(process.pid).memory_info().rss
        print(f"bridge, idle: {resident / 2**20:.1f} MiB resident")
        assert resident < 64 * 2**20
        assert process.stderr is not None
        while "not reachable" not in (line := process.stderr.readline()):
            assert line, "the bridge ended"
        entry = json.loads(line)
    # What go-plugin's log_entry.go asserts unchecked in the controller.
    assert all(isinstance(entry[key], str) for key in ("@message", "@level", "@timestamp"))
    assert entry["@level"] == "warn"
    assert entry["server"] == f"unix:{tmp_path}/absent.sock"


class Announcements(traffic_router_pb2_grpc.TrafficRouterServicer):  # type: ignore[misc]
    """A server written in Python that waits for the bridge to introduce itself."""

    def __init__(self) -> None:
        self.first: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def InitPlugin(  # noqa: N802 - the contract's name
        self, request: traffic_router_pb2.InitPluginRequest, context: Any
    ) -> traffic_router_pb2.Outcome:
        del context
        self.first.set_result(request.bridge_version)
        return traffic_router_pb2.Outcome()


async def test_it_finds_a_python_server_that_starts_later(bridge: Path, tmp_path: Path) -> None:
    with running(bridge, tmp_path / "s") as process:
        assert process.stderr is not None
        while "not reachable" not in await asyncio.to_thread(process.stderr.readline):
            pass
        server, announcements = grpc.aio.server(), Announcements()
        traffic_router_pb2_grpc.add_TrafficRouterServicer_to_server(announcements, server)
        server.add_insecure_port(f"unix:{tmp_path}/s")
        await server.start()
        try:
            version = await asyncio.wait_for(announcements.first, 180)
        finally:
            await server.stop(None)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


STARTER = """
import subprocess, sys
child = subprocess.Popen(
    sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.readline()
"""


def test_it_ends_with_a_controller_that_was_killed(bridge: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, bridge, "--server", f"unix:{tmp_path}/absent.sock"],
        env=os.environ | CONTROLLER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as controller:
        assert controller.stdout is not None
        orphan = psutil.Process(int(controller.stdout.readline()))
        controller.kill()
    limit = time.monotonic() + 180
    while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < limit, "the bridge outlives the controller"
        time.sleep(0.05)
