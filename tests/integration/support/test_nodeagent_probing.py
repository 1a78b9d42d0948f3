"""Probes against real servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from support.nodeagent.commands import Launch
from support.nodeagent.probes import Exec, Grpc, HttpGet, Sleep, TcpSocket
from support.nodeagent.probing import Answer, Prober, Target
from support.nodeagent.processes import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOST = "127.0.0.1"
LIMIT_S = 120.0


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    async with Prober() as found:
        yield found


@pytest.fixture
def target(tmp_path: Path) -> Target:
    process = ProcessSpec(
        argv=("x",), env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path, log=tmp_path / "m.log"
    )
    return Target(
        container={"name": "m"},
        address=HOST,
        launch=Launch(process=process, mounts=()),
        records=tmp_path / "processes",
    )


@pytest.fixture
async def http_port() -> AsyncIterator[int]:
    """A server that answers with the status that the path names; /hang never answers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).split()[1].decode().strip("/")
        if path == "hang":
            await reader.read()
        else:
            writer.write(
                f"HTTP/1.1 {path} X\r\nLocation: /500\r\nContent-Length: 0\r\n\r\n".encode()
            )
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def get(port: int, path: str) -> HttpGet:
    return HttpGet(host=None, port=port, path=path, scheme="http", headers=())


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (204, True), (302, True), (404, False), (503, False)]
)
async def test_http_is_well_from_200_to_399(
    prober: Prober, target: Target, http_port: int, status: int, *, ok: bool
) -> None:
    answer = await prober.ask(get(http_port, str(status)), target, LIMIT_S)
    assert answer.ok is ok
    assert ok or str(status) in answer.message


async def test_an_answer_that_is_too_late_is_a_failure(
    prober: Prober, target: Target, http_port: int
) -> None:
    answer = await prober.ask(get(http_port, "/hang"), target, 0.05)
    assert answer == Answer(ok=False, message="no answer within 0.05 s")


@pytest.mark.parametrize("action", ["http", "tcp", "grpc"])
async def test_a_closed_port_is_a_failure_that_names_it(
    prober: Prober, target: Target, unused_tcp_port: int, action: str
) -> None:
    port = unused_tcp_port
    actions: dict[str, Any] = {
        "http": get(port, "/"),
        "tcp": TcpSocket(host=None, port=port),
        "grpc": Grpc(port=port, service=""),
    }
    answer = await prober.ask(actions[action], target, LIMIT_S)
    assert not answer.ok
    assert str(port) in answer.message


async def test_an_open_port_is_enough_for_tcp(
    prober: Prober, target: Target, http_port: int
) -> None:
    assert (await prober.ask(TcpSocket(host=None, port=http_port), target, LIMIT_S)).ok


async def test_a_command_is_judged_by_its_exit_code(prober: Prober, target: Target) -> None:
    assert (await prober.ask(Exec(command=("true",)), target, LIMIT_S)).ok
    failed = await prober.ask(Exec(command=("sh", "-c", "echo why; exit 4")), target, LIMIT_S)
    assert failed == Answer(ok=False, message="sh ended with 4: why")
    missing = await prober.ask(Exec(command=("no-such-program",)), target, LIMIT_S)
    assert "not found" in missing.message


async def test_a_hook_may_just_wait(prober: Prober, target: Target) -> None:
    assert (await prober.ask(Sleep(seconds=0.01), target, LIMIT_S)).ok


async def test_grpc_is_well_when_the_service_is_serving(prober: Prober, target: Target) -> None:
    server = grpc.aio.server()
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        assert (await prober.ask(Grpc(port=port, service=""), target, LIMIT_S)).ok
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        await servicer.set("", not_serving)
        answer = await prober.ask(Grpc(port=port, service=""), target, LIMIT_S)
        assert not answer.ok
        assert "NOT_SERVING" in answer.message
        unknown = await prober.ask(Grpc(port=port, service="x"), target, LIMIT_S)
        assert "NOT_FOUND" in unknown.message
    finally:
        await server.stop(None)
