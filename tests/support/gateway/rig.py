"""A real Envoy behind the translation, with small upstreams and pickers: no cluster needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import grpc
from aiohttp import web
from google.protobuf import struct_pb2

from inference_picker._pb import ext_proc_pb2 as pb
from support.cluster.layout import clusters_folder
from support.cluster.network import claim_network
from support.gateway import samples
from support.gateway.admin import EnvoyAdmin, EnvoyUnreachable
from support.gateway.bootstrap import Layout, admin_url, envoy_command, write_bootstrap
from support.gateway.delivery import Delivery
from support.gateway.snapshot import Snapshot
from support.gateway.translate import Translation, translate
from support.gateway.xds import XdsFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from support.gateway.snapshot import Object

PORT = 8080
UPSTREAM_PORT = 8000
PICKER_PORT = 9002
_START_S = 20.0
DESTINATION = "x-gateway-destination-endpoint"


@dataclass(slots=True)
class Rig:
    """One Envoy in a network of its own: ``async with Rig.at(folder) as rig``."""

    state_dir: Path
    network: str
    session: aiohttp.ClientSession
    delivery: Delivery
    admin: EnvoyAdmin

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, folder: Path) -> AsyncIterator[Self]:
        """Start Envoy with its files below ``folder``, in a network that no cluster has."""
        claim = claim_network(clusters_folder() / "networks")
        state_dir = folder / "state"
        write_bootstrap(state_dir, claim.network.host, 9901)
        log = (state_dir / "envoy" / "envoy.log").open("wb")
        process = subprocess.Popen(envoy_command(state_dir), stdout=log, stderr=log)  # noqa: ASYNC220
        try:
            async with aiohttp.ClientSession() as session:
                admin = EnvoyAdmin(admin_url(state_dir), session)
                delivery = Delivery(XdsFiles(Layout(state_dir)), admin)
                rig = cls(state_dir, claim.network.cidr, session, delivery, admin)
                await rig._answering()
                yield rig
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)
            log.close()
            claim.lock.close()

    def pod_ip(self, number: int) -> str:
        """Address of a pod, 1 to 254."""
        return f"{self.network.removesuffix('.0.0/16')}.1.{number}"

    @property
    def url(self) -> str:
        """URL of the gateway ``gw``."""
        return f"http://{self.network.removesuffix('.0.0/16')}.255.1:{PORT}"

    async def apply(self, *objects: Object) -> tuple[Translation, set[str]]:
        """Bring a class, a gateway and these objects to Envoy; returns what it serves."""
        everything = (samples.gateway_class(), samples.gateway(), *objects)
        translation = translate(Snapshot.of(self.network, everything))
        return translation, await self.delivery.apply(translation)

    async def post(self, path: str = "/v1/completions", **more: Any) -> tuple[int, Any]:
        """POST a small JSON body; returns the status and the answer, parsed where it is JSON."""
        async with self.session.post(f"{self.url}{path}", json={"n": 1}, **more) as answer:
            text = await answer.text()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    def expire_clusters(self) -> None:
        """Let the next ``apply`` remove the clusters that no route names."""
        files = self.delivery._files
        files._leaving = dict.fromkeys(files._leaving, 0.0)

    async def clusters(self) -> set[str]:
        """Names of the clusters that Envoy got by file and still routes to."""
        async with self.session.get(
            f"{self.admin.url}/config_dump", params={"resource": "dynamic_active_clusters"}
        ) as answer:
            found = await answer.json(content_type=None)
        return {entry["cluster"]["name"] for entry in found.get("configs", ())}

    async def logged(self, path: str) -> dict[str, Any]:
        """The access log's entry of a request to ``path``; Envoy writes it after a moment."""
        log = self.state_dir / "envoy" / "access.log"
        async with asyncio.timeout(_START_S):
            while True:
                for line in log.read_text().splitlines() if log.exists() else ():
                    entry: dict[str, Any] = json.loads(line)
                    if entry["path"] == path:
                        return entry
                await asyncio.sleep(0.1)

    async def _answering(self) -> None:
        async with asyncio.timeout(_START_S):
            while True:
                try:
                    await self.admin.subscriptions()
                except EnvoyUnreachable:
                    await asyncio.sleep(0.02)
                else:
                    return


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
                self.served.append(lb.fields[f"{DESTINATION}-served"].string_value if lb else "")
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
    server.add_insecure_port(f"{address}:{PICKER_PORT}")
    await server.start()
    try:
        yield found
    finally:
        await server.stop(grace=None)
