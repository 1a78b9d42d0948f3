"""The whole process: start, drain, exit."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., "Process"]

TESTS = Path(__file__).parents[2]
START_LIMIT_S = 30


class Process:
    """A started server; `url` is where it listens."""

    def __init__(self, *flags: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "support.simulated_vllm", "--port", str(port)]
        self.popen = subprocess.Popen([*command, *flags], cwd=TESTS)

    def ready(self) -> Process:
        """Return once it is healthy."""
        transport = httpx.HTTPTransport(retries=0)
        with httpx.Client(transport=transport) as client:
            while self.popen.poll() is None:
                try:
                    if client.get(f"{self.url}/health").status_code == 200:
                        return self
                except httpx.ConnectError:
                    continue
        pytest.fail(f"the server ended with {self.popen.returncode}")


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[Process] = []

    def run(*flags: str) -> Process:
        processes.append(Process(*flags))
        return processes[-1]

    yield run
    for process in processes:
        process.popen.kill()
        process.popen.wait()


@pytest.mark.timeout(60)
def test_sigterm_lets_streams_end_and_keeps_accepting_for_the_drain(start: Start) -> None:
    process = start("--served-model-name", "m", "--drain-seconds", "1").ready()
    body = {"model": "m", "prompt": "hi", "max_tokens": 60, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{process.url}/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        process.popen.send_signal(signal.SIGTERM)
        with httpx.Client() as client:
            while (health := client.get(f"{process.url}/health")).status_code == 200:
                pass
            late = client.post(f"{process.url}/v1/completions", json={**body, "stream": False})
        assert health.status_code == 503
        assert health.headers["connection"] == "close"
        assert late.json()["usage"]["completion_tokens"] == 60
        # 60 steps of 20 ms outlast the drain of 1 s: the stream is finished all the same.
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert process.popen.wait(START_LIMIT_S) == 0


@pytest.mark.timeout(60)
def test_sigterm_while_loading_ends_at_once(start: Start) -> None:
    process = start("--load-seconds", "600")
    handled = signal.SIGTERM
    # The handler is installed once Python runs its own code: SigCgt shows it.
    status = Path(f"/proc/{process.popen.pid}/status")
    while not _catches(status, handled):
        assert process.popen.poll() is None
    process.popen.send_signal(handled)
    assert process.popen.wait(START_LIMIT_S) == 0


@pytest.mark.timeout(60)
def test_a_server_stays_below_60_megabytes(start: Start) -> None:
    process = start("--served-model-name", "m", "--speed", "50").ready()
    body = {"model": "m", "prompt": "hi", "max_tokens": 5}
    for _ in range(20):
        assert httpx.post(f"{process.url}/v1/completions", json=body).status_code == 200
    assert psutil.Process(process.popen.pid).memory_info().rss < 60e6


@pytest.mark.timeout(60)
def test_a_taken_port_is_said_in_one_line(start: Start) -> None:
    process = start("--served-model-name", "m").ready()
    port = process.url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "support.simulated_vllm", "--port", port],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr.startswith(f"can't listen on 127.0.0.1:{port}: ")
    assert second.stderr.count("\n") == 1


def _catches(status: Path, number: signal.Signals) -> bool:
    caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & (1 << (number - 1)))
