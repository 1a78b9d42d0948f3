"""Small upstreams and pickers that stand behind Envoy in tests."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from aiohttp import web
from google.protobuf import struct_pb2

from inference_picker._pb import ext_proc_pb2 as pb
from inference_picker.tls import Tls, credentials
from support.gateway.resources import DESTINATION, SERVED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

UPSTREAM_PORT = 8000
PICKER_PORT = 9002


@contextlib.asynccontextmanager
async def upstream(address: str, name: str, chunks: int = 0) -> AsyncIterator[Upstream]:
    """A server that answers its name and what it was asked, or streams ``chunks`` lines."""
    server = Upstream(name=name, chunks=chunks)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, address, UPSTREAM_PORT).start()
    try:
        yield server
    finally:
        server.gate.set()
        await runner.cleanup()


@dataclass(slots=True)
class Upstream:
    """State of one upstream; streams wait at ``gate`` before their last chunk."""

    name: str
    chunks: int = 0
    token_s: float = 0.01
    requests: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.requests += 1
        body = await request.read()
        if request.path.endswith("/chat/completions"):
            return await self._chat(request)
        if not self.chunks:
            headers = {key.lower(): value for key, value in request.headers.items()}
            found = {"name": self.name, "headers": headers, "body": body.decode()}
            return web.json_response(found)
        response = web.StreamResponse()
        await response.prepare(request)
        for index in range(self.chunks):
            if index == self.chunks - 1:
                await self.gate.wait()
            await response.write(f"{self.name} {index}\n".encode())
        return response

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        """A short streamed chat answer, in the form of the OpenAI API."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for token in ("I ", "am ", f"{self.name}."):
            choice = {"index": 0, "delta": {"content": token}}
            event = {"model": "m", "system_fingerprint": self.name, "choices": [choice]}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(self.token_s)
        await response.write(b"data: [DONE]\n\n")
        return response


@dataclass(slots=True)
class Picker:
    """A picker that answers what it is told and records what Envoy says."""

    pick: Callable[[], list[str]]
    by_header: bool = True
    by_metadata: bool = True
    requests: int = 0
    kinds: list[list[str]] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def process(
        self, messages: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        """One ext_proc stream."""
        self.requests += 1
        kinds: list[str] = []
        self.kinds.append(kinds)
        async for data in messages:
            message = pb.ProcessingRequest.FromString(data)
            kind = message.WhichOneof("request")
            assert kind is not None
            kinds.append(kind)
            yield self._answer(kind, message).SerializeToString()

    def _answer(self, kind: str, message: pb.ProcessingRequest) -> pb.ProcessingResponse:
        match kind:
            case "request_body":
                self.bodies.append(message.request_body.body)
                return self._routed()
            case "response_headers":
                lb = message.metadata_context.filter_metadata.get("envoy.lb")
                self.served.append(lb.fields[SERVED].string_value if lb else "")
                for header in message.response_headers.headers.headers:
                    if header.key == ":status":
                        self.statuses.append((header.raw_value or header.value.encode()).decode())
                return pb.ProcessingResponse(response_headers=pb.HeadersResponse())
            case "response_trailers":
                return pb.ProcessingResponse(response_trailers=pb.TrailersResponse())
            case _:
                return pb.ProcessingResponse(request_headers=pb.HeadersResponse())

    def _routed(self) -> pb.ProcessingResponse:
        destination = ",".join(self.pick())
        common = pb.CommonResponse(clear_route_cache=True)
        if self.by_header:
            option = common.header_mutation.set_headers.add()
            option.header.key, option.header.raw_value = DESTINATION, destination.encode()
            option.append_action = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        answer = pb.ProcessingResponse(request_body=pb.BodyResponse(response=common))
        if self.by_metadata:
            inner = struct_pb2.Struct()
            inner.update({DESTINATION: destination})
            answer.dynamic_metadata.update({"envoy.lb": inner})
        return answer


@contextlib.asynccontextmanager
async def picker(
    address: str,
    pick: Callable[[], list[str]],
    *,
    by_header: bool = True,
    by_metadata: bool = True,
) -> AsyncIterator[Picker]:
    """Serve a picker on ``address``."""
    found = Picker(pick=pick, by_header=by_header, by_metadata=by_metadata)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler: Any = grpc.stream_stream_rpc_method_handler(found.process)
    name = "envoy.service.ext_proc.v3.ExternalProcessor"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"Process": handler}),)
    )
    tls = credentials(Tls(), dt.datetime.now(dt.UTC))
    server.add_secure_port(f"{address}:{PICKER_PORT}", tls)
    await server.start()
    try:
        yield found
    finally:
        await server.stop(grace=None)
