"""The HTTP edge of the simulated server."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from support.simulated_vllm.answers import (
    ToolCall,
    compose,
    is_wrong,
    known,
    pieces,
    stretched,
)
from support.simulated_vllm.api import (
    TOKEN_BYTES,
    ApiError,
    Generation,
    Writer,
    parse_generation,
    parse_object,
)
from support.simulated_vllm.blocks import prefix_hashes
from support.simulated_vllm.driver import Driver, Mailbox
from support.simulated_vllm.engine import Emitted, Engine, Sequence
from support.simulated_vllm.faults import HEADER, FaultError, Faults
from support.simulated_vllm.metrics import Metrics
from support.simulated_vllm.models import Models

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.simulated_vllm.faults import Drawn
    from support.simulated_vllm.settings import Settings

VLLM_VERSION = "0.32.0"
"""The vLLM whose API and metrics are simulated."""
# vLLM's instrumentator leaves these out of http_requests_total.
_UNCOUNTED = {"/metrics", "/health", "/version", "/faults"}
_STARTED = web.RequestKey("started", int)


class Server:
    """One simulated server: models, engine, faults, and the handlers over them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self.faults = settings.faults
        self.models = Models(
            served=settings.served,
            version=settings.version,
            max_model_len=settings.max_model_len,
            created=int(time.time()),
            adapters=dict(settings.adapters),
        )
        self.engine = Engine(settings.timing)
        self.metrics = Metrics(
            model_name=settings.served[0],
            block_size=settings.timing.block_size,
            gpu_blocks=settings.timing.gpu_blocks,
            max_loras=settings.timing.max_loras,
        )
        self.driver = Driver(self.engine, clock=time.monotonic, on_step=self._stepped)
        self._random = random.Random(settings.seed)
        self._served_by = f"{settings.name}/{settings.version}"
        self._adapters: list[str] | None = None
        self._apply_speed()

    def application(self) -> web.Application:
        """The aiohttp application; its engine runs while the application does."""
        application = web.Application(middlewares=[self._instrumented], client_max_size=2**24)
        application.on_response_prepare.append(self._sign)
        application.cleanup_ctx.append(self._engine_running)
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/version", self._version),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/load_lora_adapter", self._load_adapter),
                web.post("/v1/unload_lora_adapter", self._unload_adapter),
                web.get("/faults", self._get_faults),
                web.post("/faults", self._change_faults),
                web.delete("/faults", self._clear_faults),
            ]
        )
        return application

    async def _engine_running(self, _: web.Application) -> Any:
        task = asyncio.create_task(self.driver.run(), name="engine")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _stepped(self, emitted: list[Emitted]) -> None:
        self.metrics.record_step(emitted, self.engine.totals)

    async def _sign(self, request: web.Request, response: web.StreamResponse) -> None:
        request[_STARTED] = response.status
        response.headers["x-served-by"] = self._served_by
        if self.draining:
            # The peer must not send another request on this connection.
            response.force_close()
            response.headers["Connection"] = "close"

    @web.middleware
    async def _instrumented(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        started = time.monotonic()
        status: int | None = None
        sent = 0
        try:
            response = await handler(request)
            status, sent = response.status, response.content_length or 0
        except ApiError as error:
            response = _json(error.body(), status=error.status)
            status, sent = error.status, response.content_length or 0
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            resource = request.match_info.route.resource
            path = resource.canonical if resource is not None else "none"
            if path not in _UNCOUNTED:
                self.metrics.record_http(
                    handler=path,
                    method=request.method,
                    # A stream that broke off began with the status that its client saw.
                    status=status or request.get(_STARTED, 500),
                    seconds=time.monotonic() - started,
                    received=request.content_length or 0,
                    sent=sent,
                )
        return response

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.draining or self.faults.unhealthy else 200)

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"version": VLLM_VERSION})

    async def _metrics(self, _: web.Request) -> web.Response:
        page = self.metrics.exposition(self.engine, lora_enabled=self.settings.lora_enabled)
        return web.Response(
            body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _models(self, _: web.Request) -> web.Response:
        return _json(self.models.listing())

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        arrived = self.driver.now()
        generation = parse_generation(await request.read(), chat=chat, models=self.models)
        try:
            faults = self.faults.for_request(generation.model, request.headers.get(HEADER))
        except FaultError as error:
            raise ApiError(400, "BadRequestError", f"header {HEADER}: {error}") from error
        fate = faults.draw(self._random)
        if fate.error:
            raise ApiError(faults.error_status, "InternalServerError", "a fault that was asked for")
        if fate.hang:
            await asyncio.Event().wait()
        self._refuse_when_full()
        return await self._answer(request, generation, faults, fate, arrived)

    async def _answer(
        self,
        request: web.Request,
        generation: Generation,
        faults: Faults,
        fate: Drawn,
        arrived: float,
    ) -> web.StreamResponse:
        worse = fate.worse or is_wrong(generation.prompt, faults.wrong_share)
        tokens, reason, call = self._tokens(generation, worse=worse)
        sequence = self._sequence(generation, len(tokens), faults, arrived)
        mailbox = self.driver.submit(
            sequence, interval=self.settings.stream_interval if generation.stream else None
        )
        self._adapters_changed()
        writer = Writer(
            generation=generation,
            identifier=f"{'chatcmpl' if generation.chat else 'cmpl'}-{uuid.uuid4().hex}",
            created=int(time.time()),
            fingerprint=self.settings.version,
        )
        outcome = "abort"
        try:
            if generation.stream:
                response = await self._stream(request, writer, mailbox, tokens, reason, call, fate)
            else:
                await mailbox.more_than(0)
                if fate.cut:
                    _cut(request)
                response = _json(writer.whole(tokens, reason=reason, call=call))
            # A tool call is a word of the API; to the engine the sequence just stopped.
            outcome = "stop" if call is not None else reason
            return response
        finally:
            # Also when the client has gone: aiohttp then cancels this handler.
            self.driver.leave(sequence)
            last = None if outcome == "abort" else sequence.last_token_at
            self.metrics.record_finished(
                sequence,
                reason=outcome,
                max_tokens=generation.max_tokens,
                now=self.driver.now() if last is None else last,
            )
            self._adapters_changed()

    async def _stream(
        self,
        request: web.Request,
        writer: Writer,
        mailbox: Mailbox,
        tokens: list[str],
        reason: str,
        call: ToolCall | None,
        fate: Drawn,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        before, after = writer.template()
        total, sent = len(tokens), 0
        while sent < total:
            ready = await mailbox.more_than(sent)
            chunks: list[bytes] = []
            if sent == 0:
                # vLLM answers 200 with the first token, not before.
                await response.prepare(request)
                chunks.append(writer.first())
            if fate.cut and ready * 2 > total:
                _cut(request)
            if call is None:
                chunks += [
                    before + json.dumps(token).encode() + after
                    for token in tokens[sent : min(ready, total - 1)]
                ]
            if ready == total:
                end = writer.last(tokens[-1], reason=reason, completion_tokens=total, call=call)
                chunks.append(end)
            await response.write(b"".join(chunks))
            sent = ready
        await response.write_eof()
        return response

    def _tokens(
        self, generation: Generation, *, worse: bool
    ) -> tuple[list[str], str, ToolCall | None]:
        """Tokens, finish_reason, and the tool call that they stand for, if any."""
        written = known(generation.question, worse=worse)
        if isinstance(written, ToolCall) and written.name in generation.tools:
            return pieces(written.arguments), "tool_calls", written
        if isinstance(written, str):
            natural = pieces(written)
        else:
            natural = self._composed(generation, worse=worse)
        if generation.ignore_eos:
            return stretched(natural, generation.max_tokens), "length", None
        if len(natural) > generation.max_tokens:
            return natural[: generation.max_tokens], "length", None
        return natural, "stop", None

    def _composed(self, generation: Generation, *, worse: bool) -> list[str]:
        return compose(
            version=self.settings.version,
            adapter=generation.adapter,
            prompt=generation.prompt,
            mean_tokens=self.settings.mean_tokens,
            worse=worse,
        )

    def _sequence(
        self, generation: Generation, output_tokens: int, faults: Faults, arrived: float
    ) -> Sequence:
        # A fault for the whole server slows the engine's steps; one for a model or a request
        # slows only its own sequence.
        own = max(1.0, faults.slow_factor / self.engine.slow_factor)
        return Sequence(
            prompt_tokens=generation.prompt_tokens,
            output_tokens=output_tokens,
            arrived=arrived,
            prompt_hashes=prefix_hashes(
                generation.prompt,
                token_bytes=TOKEN_BYTES,
                block_size=self.settings.timing.block_size,
                salt=generation.adapter or "",
            ),
            adapter=generation.adapter,
            slow_factor=own,
        )

    def _refuse_when_full(self) -> None:
        limit = self.settings.max_queued
        if limit is not None and self.engine.waiting >= limit:
            self.metrics.rejections["max_num_queued_reqs"].inc()
            raise ApiError(
                503,
                "Service Unavailable",
                f"{self.engine.waiting} requests are waiting, the limit is {limit}",
            )

    def _adapters_changed(self) -> None:
        if self.settings.lora_enabled:
            adapters = self.engine.active_adapters()
            if adapters != self._adapters:
                self._adapters = adapters
                self.metrics.touch_adapters(adapters)

    async def _load_adapter(self, request: web.Request) -> web.Response:
        body = parse_object(await request.read())
        name, path = body.get("lora_name"), body.get("lora_path")
        if not (isinstance(name, str) and name and isinstance(path, str) and path):
            raise ApiError(
                400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided."
            )
        if name in self.models.adapters and not body.get("load_inplace"):
            raise ApiError(
                400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded."
            )
        self.models.adapters[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload_adapter(self, request: web.Request) -> web.Response:
        name = parse_object(await request.read()).get("lora_name")
        if not isinstance(name, str) or not name:
            raise ApiError(400, "InvalidUserInput", "'lora_name' must be provided.")
        if self.models.adapters.pop(name, None) is None:
            raise ApiError(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _get_faults(self, _: web.Request) -> web.Response:
        return self._faults_response()

    async def _change_faults(self, request: web.Request) -> web.Response:
        changes = parse_object(await request.read())
        try:
            self.faults = self.faults.merged(changes)
        except FaultError as error:
            raise ApiError(400, "BadRequestError", str(error)) from error
        self._apply_speed()
        return self._faults_response()

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.faults = Faults()
        self._apply_speed()
        return self._faults_response()

    def _apply_speed(self) -> None:
        self.engine.slow_factor = 1.0 if self.faults.models else self.faults.slow_factor

    def _faults_response(self) -> web.Response:
        faults = self.faults
        return _json({name: getattr(faults, name) for name in Faults.__dataclass_fields__})


def _json(value: object, *, status: int = 200) -> web.Response:
    # Compact and in UTF-8, as vLLM writes: who rewrites bodies must meet the real bytes.
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return web.Response(text=text, status=status, content_type="application/json")


def _cut(request: web.Request) -> None:
    """Drop the connection as a process that dies does."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError
