"""A real Envoy between a client and a small model server, with the picker as its ext_proc."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml
from aiohttp import web

from inference_picker.director import Settings
from inference_picker.pool import Endpoint, PoolSnapshot, StaticSource, make_snapshot
from inference_picker.serving import Options, Running, serving
from inference_picker.splits import ModelSplit, Target
from inference_picker.tls import Tls
from support.repository import MANIFESTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

WAIT_S = 120.0
_MADE_UP = Tls()


@dataclass
class Upstream:
    """A model server that names the model it was asked for in each piece of its answer."""

    address: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    running: int = 0
    hold: asyncio.Event | None = None
    status: int = 200
    """Of every answer, unless the request asks for another."""
    chunks: int = 5
    page: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """The metrics page; None for none."""
    faults: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(
        default_factory=dict
    )
    """What to do for requests with the header ``x-test-fault``."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(request.headers.copy())
        asked = json.loads(body)
        fault = self.faults.get(request.headers.get("x-test-fault", ""))
        if fault is not None:
            return await fault(request)
        status = int(request.headers.get("x-test-status", self.status))
        if status != 200:
            return web.json_response({"error": {"message": "on request"}}, status=status)
        if not asked.get("stream"):
            return web.json_response({"id": "1", "model": asked["model"], "choices": ["é"]})
        self.running += 1
        try:
            return await self.stream(request, asked["model"])
        finally:
            self.running -= 1

    async def stream(self, request: web.Request, model: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in sse_pieces(model, self.chunks):
            await response.write(piece)
        if self.hold is not None:
            await self.hold.wait()
        if request.headers.get("x-test-break") and request.transport is not None:
            request.transport.abort()
            return response
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=404) if self.page is None else await self.page(request)

    async def list_models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "base"}]})


def sse_pieces(model: str, count: int) -> list[bytes]:
    """Events whose model name is cut by the border between two writes."""
    pieces = []
    for number in range(count):
        event = json.dumps({"id": number, "model": model, "text": 'the "model":"v1"'})
        data = f"data: {event}\n\n".encode()
        middle = data.index(b'"model"') + 12
        pieces += [data[:middle], data[middle:]]
    return pieces


def whole_stream(model: str, count: int) -> bytes:
    return b"".join(sse_pieces(model, count)) + b"data: [DONE]\n\n"


@contextlib.asynccontextmanager
async def upstream_server(port: int = 0) -> AsyncIterator[Upstream]:
    upstream = Upstream()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", upstream.answer)
    app.router.add_get("/v1/models", upstream.list_models)
    app.router.add_get("/metrics", upstream.show_metrics)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    upstream.address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield upstream
    finally:
        if upstream.hold is not None:
            upstream.hold.set()
        await runner.cleanup()


def envoy_config(
    picker_port: int,
    mode: Mapping[str, Any],
    *,
    tls: bool = True,
    members: Sequence[str] = (),
    filters: Sequence[Mapping[str, Any]] = (),
    retries: int = 0,
) -> dict[str, Any]:
    """The shape that the local cluster's gateway gives each pool.

    With ``members``, the pool's addresses, Envoy falls back to one of them where no picker says
    which, and tells which one served. ``filters`` stand before the picker's; ``retries`` are made
    where an endpoint refuses the connection.
    """
    address = {"socket_address": {"address": "127.0.0.1", "port_value": picker_port}}
    h2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    ext_proc = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}, "timeout": "120s"},
        "message_timeout": "120s",
        "metadata_options": {
            "receiving_namespaces": {"untyped": ["envoy.lb"]},
            "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
        },
        **mode,
    }
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    route: dict[str, Any] = {"cluster": "pool", "timeout": "0s"}
    if retries:
        route["retry_policy"] = {"retry_on": "connect-failure", "num_retries": retries}
    hcm = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager"
        ".v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": route}],
                }
            ]
        },
        "http_filters": [
            *filters,
            {"name": "picker", "typed_config": ext_proc},
            {"name": "router", "typed_config": router},
        ],
    }
    tls_context = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["h2"]},
    }
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": tls_context}
    any_port = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "admin": {"address": any_port},
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": any_port,
                    "per_connection_buffer_limit_bytes": 32 * 1024 * 1024,
                    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}],
                }
            ],
            "clusters": [
                {
                    "name": "picker",
                    "type": "STATIC",
                    "connect_timeout": "60s",
                    "typed_extension_protocol_options": h2,
                    **({"transport_socket": socket} if tls else {}),
                    "load_assignment": {
                        "cluster_name": "picker",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                },
                _pool_cluster(members),
            ],
        },
    }


def _pool_cluster(members: Sequence[str]) -> dict[str, Any]:
    if not members:
        return {
            "name": "pool",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "60s",
            "original_dst_lb_config": {
                "use_http_header": True,
                "http_header_name": "x-gateway-destination-endpoint",
            },
        }
    policies = "type.googleapis.com/envoy.extensions.load_balancing_policies"
    round_robin = {
        "typed_extension_config": {
            "name": "envoy.load_balancing_policies.round_robin",
            "typed_config": {"@type": f"{policies}.round_robin.v3.RoundRobin"},
        }
    }
    override = {
        "@type": f"{policies}.override_host.v3.OverrideHost",
        "override_host_sources": [{"header": "x-gateway-destination-endpoint"}],
        "selected_host_key": {
            "key": "envoy.lb",
            "path": [{"key": "x-gateway-destination-endpoint-served"}],
        },
        "fallback_policy": {"policies": [round_robin]},
    }
    config = {"name": "envoy.load_balancing_policies.override_host", "typed_config": override}
    hosts = [each.rpartition(":") for each in members]
    return {
        "name": "pool",
        "type": "STATIC",
        "connect_timeout": "60s",
        # Three retries at a time are Envoy's default.
        "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
        "load_balancing_policy": {"policies": [{"typed_extension_config": config}]},
        "load_assignment": {
            "cluster_name": "pool",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {
                                    "socket_address": {"address": host, "port_value": int(port)}
                                }
                            }
                        }
                        for host, _, port in hosts
                    ]
                }
            ],
        },
    }


RECOMMENDED: dict[str, Any] = yaml.safe_load(
    (MANIFESTS / "gateways" / "envoy-ext-proc.yaml").read_text(encoding="utf-8")
)
FULL_DUPLEX: dict[str, Any] = {
    "processing_mode": {
        "request_header_mode": "SEND",
        "request_body_mode": "FULL_DUPLEX_STREAMED",
        "request_trailer_mode": "SEND",
        "response_header_mode": "SEND",
        "response_body_mode": "FULL_DUPLEX_STREAMED",
        "response_trailer_mode": "SEND",
    },
}
STREAMED: dict[str, Any] = {
    "processing_mode": {
        "request_header_mode": "SEND",
        "request_body_mode": "STREAMED",
        "request_trailer_mode": "SKIP",
        "response_header_mode": "SEND",
        "response_body_mode": "STREAMED",
        "response_trailer_mode": "SKIP",
    },
}
BUFFERED: dict[str, Any] = {
    "processing_mode": {
        "request_header_mode": "SEND",
        "request_body_mode": "BUFFERED",
        "response_header_mode": "SEND",
        "response_body_mode": "BUFFERED",
    },
}
MODES = {
    "recommended": RECOMMENDED,
    "full-duplex": FULL_DUPLEX,
    "streamed": STREAMED,
    "buffered": BUFFERED,
}


@contextlib.asynccontextmanager
async def envoy_server(
    directory: Path,
    picker_port: int,
    mode: Mapping[str, Any],
    **fields: Any,
) -> AsyncIterator[str]:
    """A running Envoy; yields the URL of its listener. ``fields`` are those of envoy_config."""
    binary = Path(sys.executable).with_name("envoy")
    config = directory / "envoy.json"
    admin = directory / "admin"
    config.write_text(json.dumps(envoy_config(picker_port, mode, **fields)))
    with (directory / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(binary, "--config-path", config, "--admin-address-path", admin),
            *("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"),
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(WAIT_S) as limit:
            url = await _listener_url(session, admin, process)
            limit.reschedule(None)
            yield url
    except RuntimeError as error:
        error.add_note((directory / "envoy.log").read_text()[-3000:])
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _listener_url(
    session: aiohttp.ClientSession, admin: Path, process: asyncio.subprocess.Process
) -> str:
    """The address that Envoy's listener got, once it takes connections."""
    while True:
        if process.returncode is not None:
            raise RuntimeError(f"Envoy ended with status {process.returncode}")
        with contextlib.suppress(aiohttp.ClientError, OSError, KeyError, IndexError):
            address = admin.read_text()  # noqa: ASYNC240 - a few bytes
            async with session.get(f"http://{address}/ready") as response:
                live = response.status == 200
            async with session.get(f"http://{address}/listeners?format=json") as response:
                found = await response.json()
                bound = found["listener_statuses"][0]["local_address"]["socket_address"]
                if live:
                    return f"http://127.0.0.1:{bound['port_value']}"
        await asyncio.sleep(0.05)


@dataclass
class Setup:
    """Everything that a test touches."""

    url: str
    client: aiohttp.ClientSession
    upstreams: list[Upstream]
    picker: Running
    source: StaticSource

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a series over the label values that are not given."""
        return sum(
            sample.value
            for family in self.picker.metrics.collect()
            for sample in family.samples
            if sample.name == f"inference_picker_{name}" and labels.items() <= sample.labels.items()
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - it looks into other tasks
                await asyncio.sleep(0.01)

    async def landed(self) -> None:
        """Wait until nothing is in flight by the picker's count."""
        await self.until(lambda: not self.picker.director.flights.counts)

    async def chat(
        self,
        *,
        model: str = "travelhelper",
        stream: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        body = {"messages": [{"content": '"model": "x"'}], "model": model, "stream": stream}
        async with self.client.post(
            f"{self.url}/v1/chat/completions", json=body, headers=headers
        ) as response:
            return response.status, await response.read()


SPLIT = ModelSplit(
    model="travelhelper",
    targets=(
        Target(name="travel-helper-v1", weight=90),
        Target(name="travel-helper-v2", weight=10),
    ),
)


def pool_of(upstreams: Sequence[Upstream]) -> PoolSnapshot:
    """A pool of these servers, each of a version of its own."""
    return make_snapshot(
        [
            Endpoint(
                address=each.address,
                version=f"hash{number}",
                models=frozenset({"base", "travel-helper-v1", "travel-helper-v2"}),
            )
            for number, each in enumerate(upstreams)
        ],
        [SPLIT],
    )


@contextlib.asynccontextmanager
async def running_setup(
    directory: Path,
    mode: Mapping[str, Any],
    settings: Settings | None = None,
    *,
    watch_share: float = 1.0,
    tls: Tls | None = _MADE_UP,
    pick_log: Path | None = None,
    servers: int = 2,
    ports: Sequence[int] = (),
    **envoy: Any,
) -> AsyncIterator[Setup]:
    """The picker between Envoy and its servers; ``envoy`` are fields of envoy_config.

    The servers listen on ``ports`` where these are given, else on free ones.
    """
    async with contextlib.AsyncExitStack() as stack:
        upstreams = [
            await stack.enter_async_context(upstream_server(port))
            for port in (ports or (0,) * servers)
        ]
        source = StaticSource(pool_of(upstreams))
        options = Options(
            address="127.0.0.1:0",
            metrics_address="127.0.0.1:0",
            settings=settings or Settings(),
            watch_share=watch_share,
            tls=tls,
            pick_log=pick_log,
            health_address="127.0.0.1:0",
            max_body_bytes=4 * 1024 * 1024,
        )
        picker = await stack.enter_async_context(serving(source, options))
        url = await stack.enter_async_context(
            envoy_server(directory, picker.port, mode, tls=tls is not None, **envoy)
        )
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Setup(url=url, client=client, upstreams=upstreams, picker=picker, source=source)
