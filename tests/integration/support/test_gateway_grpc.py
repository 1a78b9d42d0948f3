"""Calls through the real Envoy: who answers, by weight, by header, by method."""

from __future__ import annotations

import collections
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from support.gateway import samples
from support.gateway.peers import UPSTREAM_PORT
from support.gateway.rig import Rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.gateway.snapshot import Object

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with Rig.at(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@contextlib.asynccontextmanager
async def answering(rig: Rig, number: int, name: str) -> AsyncIterator[list[str]]:
    """A gRPC server at a pod's address that answers its name; yields the calls it has had."""
    calls: list[str] = []

    async def say(_: bytes, context: Any) -> bytes:
        del context
        calls.append(name)
        return name.encode()

    handler: Any = grpc.unary_unary_rpc_method_handler(say)
    service = grpc.method_handlers_generic_handler("llm.Chat", {"Say": handler, "Ask": handler})
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"{rig.pod_ip(number)}:{UPSTREAM_PORT}")
    await server.start()
    try:
        yield calls
    finally:
        await server.stop(None)


def objects(rig: Rig, *rules: Object) -> list[Object]:
    return [
        samples.grpc_route(*rules),
        *(samples.pool(name, {"n": name}) for name in ("1", "2")),
        *(samples.pod(f"pod-{n}", {"n": str(n)}, rig.pod_ip(n)) for n in (1, 2)),
    ]


async def test_calls_follow_weights_headers_and_methods(rig: Rig) -> None:
    plain = {"backendRefs": [samples.pool_ref("1", 50), samples.pool_ref("2", 50)]}
    header = {
        "matches": [{"headers": [{"name": "x-beta", "value": "yes"}]}],
        "backendRefs": [samples.pool_ref("2", 1)],
    }
    method = {
        "matches": [{"method": {"service": "llm.Chat", "method": "Ask"}}],
        "backendRefs": [samples.pool_ref("1", 1)],
    }
    async with answering(rig, 1, "stable"), answering(rig, 2, "canary"):
        await rig.apply(*objects(rig, header, method, plain))
        async with grpc.aio.insecure_channel(rig.url.removeprefix("http://")) as channel:
            say: Any = channel.unary_unary("/llm.Chat/Say")
            ask: Any = channel.unary_unary("/llm.Chat/Ask")
            answers = collections.Counter([await say(b"?") for _ in range(200)])
            assert set(answers) == {b"stable", b"canary"}
            # Half of 200 draws: outside of 60 to 140 less often than once in ten million.
            assert 60 <= answers[b"canary"] <= 140
            beta = (("x-beta", "yes"),)
            assert {await say(b"?", metadata=beta) for _ in range(20)} == {b"canary"}
            assert {await ask(b"?") for _ in range(20)} == {b"stable"}


async def test_calls_are_mirrored_and_answered_by_one(rig: Rig) -> None:
    mirror = {"backendRef": samples.pool_ref("2"), "percent": 100}
    rule = {
        "filters": [{"type": "RequestMirror", "requestMirror": mirror}],
        "backendRefs": [samples.pool_ref("1", 1)],
    }
    async with answering(rig, 1, "stable"), answering(rig, 2, "canary") as copies:
        await rig.apply(*objects(rig, rule))
        async with grpc.aio.insecure_channel(rig.url.removeprefix("http://")) as channel:
            say: Any = channel.unary_unary("/llm.Chat/Say")
            assert {await say(b"?") for _ in range(20)} == {b"stable"}
    assert len(copies) >= 18
