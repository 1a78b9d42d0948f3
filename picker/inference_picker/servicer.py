"""The ext_proc service: one exchange for each gRPC stream."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import grpc

from inference_picker import wire
from inference_picker.errors import PeerProtocolError
from inference_picker.exchange import DEFAULT_MAX_BODY_BYTES, Exchange
from inference_picker.messages import (
    BodyMode,
    ChooseTarget,
    Ended,
    EndStream,
    Finish,
    FirstByte,
    Picked,
    PickEndpoint,
    Reason,
    Refused,
    Reject,
    RequestHeaders,
    Retargeted,
    StreamClosed,
)
from inference_picker.witnesses import Witnesses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from inference_picker.board import Flight
    from inference_picker.director import Director
    from inference_picker.gateway import Gateways
    from inference_picker.messages import Event, Pick
    from inference_picker.recording import Recorder
    from inference_picker.sampling import Sampling

    _MethodHandler = grpc.RpcMethodHandler[bytes, bytes]

_METHOD: Final = f"/{wire.SERVICE}/{wire.METHOD}"
_FAILED: Final = Refused(
    status=500, reason=Reason.INTERNAL, message="The endpoint picker failed; see its log."
)


class ExchangeStream:
    """One exchange and what it holds: its flight is landed on every path, once."""

    __slots__ = (
        "_director",
        "_exchange",
        "_flight",
        "_headers",
        "_modes",
        "_service",
        "is_over",
        "queued",
    )

    def __init__(self, service: ExternalProcessor, *, leaves: bool) -> None:
        self._service = service
        self._director = service.director
        self._exchange = Exchange(max_body_bytes=service.max_body_bytes, leaves=leaves)
        self._flight: Flight | None = None
        self._modes = (BodyMode.NONE, BodyMode.NONE)
        self._headers: Mapping[str, str] = {}
        self.is_over = False
        """Whether the gateway is to go on without the picker."""
        self.queued: Awaitable[tuple[Pick, Flight] | Refused] | None = None
        """A pick that is not made yet; `resolve` takes its outcome."""

    def take(self, event: Event) -> list[bytes]:
        """The messages for Envoy that an event leads to."""
        if isinstance(event, RequestHeaders):
            self._modes = (event.request_body_mode, event.response_body_mode)
            self._headers = event.headers
            self._service.gateways.called(*self._modes)
        answers: list[bytes] = []
        events: list[Event] = [event]
        clock = self._service.clock
        while events:
            for command in self._exchange.receive(events.pop(), at=clock()):
                act = self.ACTIONS.get(type(command))
                if act is not None and (found := act(self, command)) is not None:
                    events.append(found)
                if type(command) in wire.ANSWERS:
                    answers.append(wire.encode(cast("wire.Answer", command)))
        return answers

    def resolve(self, found: tuple[Pick, Flight] | Refused) -> list[bytes]:
        """The messages for Envoy once a queued pick has been made."""
        self.queued = None
        return self.take(self._picked(found))

    def close(self) -> None:
        """Close the books, whatever happened before."""
        try:
            self.take(StreamClosed())
        finally:
            if self._flight is not None:
                self._flight.land()

    def _pick(self, question: PickEndpoint) -> Event | None:
        if self._service.witnesses.explain:
            question = replace(question, explain=True)
        try:
            found = self._director.pick(question)
        except Exception:
            # The request must be answered all the same.
            self._director.log.exception("the scheduler failed")
            self._service.recorder.metrics.failures.inc(())
            return _FAILED
        if isinstance(found, tuple | Refused):
            return self._picked(found)
        self.queued = found
        return None

    def _picked(self, found: tuple[Pick, Flight] | Refused) -> Event:
        if isinstance(found, Refused):
            return found
        pick, self._flight = found
        # Where the gateway's mode shows watched answers only, a few of a hundred would long hide
        # that a server fails.
        suspect = self._director.scheduler.ejector.is_suspect(pick.endpoints[0])
        if self._service.sampling.watches(pick.sample) or suspect:
            pick = replace(pick, watch_body=True)
        self._service.recorder.picked(pick, self._director.pool)
        return Picked(pick=pick)

    def _retarget(self, question: ChooseTarget) -> Event:
        found = self._director.retarget(question)
        return found if isinstance(found, Refused) else Retargeted(pick=found)

    def _first_byte(self, _command: FirstByte) -> None:
        if self._flight is not None:
            self._flight.first_byte(self._service.clock())

    def _end(self, _command: EndStream) -> None:
        self.is_over = True

    def _refused(self, command: Reject) -> None:
        self._service.recorder.refused(command.reason)
        self._service.witnesses.refused(self._headers, command)
        self._director.log.info(
            "request refused",
            status=command.status,
            reason=str(command.reason),
            message=command.message,
        )

    def _finish(self, finish: Finish) -> None:
        flight, self._flight = self._flight, None
        finish = self._service.gateways.corrected(finish, *self._modes)
        if flight is not None:
            if finish.ended is Ended.UNFOLLOWED:
                self._director.unfollowed(flight, finish)
            else:
                flight.land()
        self._director.finish(finish)
        self._service.recorder.finished(finish, self._director.pool)
        self._service.witnesses.finished(self._headers, finish)

    ACTIONS: ClassVar[dict[type, Callable[[ExchangeStream, Any], Event | None]]] = {
        PickEndpoint: _pick,
        ChooseTarget: _retarget,
        FirstByte: _first_byte,
        EndStream: _end,
        Reject: _refused,
        Finish: _finish,
    }


class ExternalProcessor:
    """Envoy's ext_proc service over a director."""

    def __init__(
        self,
        director: Director,
        *,
        recorder: Recorder,
        gateways: Gateways,
        sampling: Sampling,
        witnesses: Witnesses | None = None,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve exchanges with this director."""
        self.director = director
        self.recorder = recorder
        self.gateways = gateways
        self.sampling = sampling
        self.witnesses = witnesses or Witnesses()
        self.max_body_bytes = max_body_bytes
        self.clock = clock

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler to register at a server: messages stay bytes up to `wire`."""
        return _Handler(self)

    def open(self, *, leaves: bool = False) -> ExchangeStream:
        """A new exchange; ``leaves``: its last answer is sent with the end of the stream."""
        return ExchangeStream(self, leaves=leaves)

    async def follow(
        self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        """Run one exchange until the gateway ends its stream."""
        await self._run(context, leaves=False)

    async def follow_or_leave(
        self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes:
        """Run one exchange until nothing more is to be followed; returns the last answer.

        The answer goes out together with the end of the stream. Were there time between the two,
        the gateway could meanwhile see the server's response, and would lose a chunk of it.
        """
        return await self._run(context, leaves=True) or b""

    async def _run(
        self, context: grpc.aio.ServicerContext[bytes, bytes], *, leaves: bool
    ) -> bytes | None:
        stream = self.open(leaves=leaves)
        try:
            return await self._exchange(stream, context)
        except PeerProtocolError as error:
            self.recorder.metrics.protocol_errors.inc(())
            self.director.log.warning("the gateway broke the protocol", error=str(error))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (asyncio.CancelledError, grpc.aio.UsageError, grpc.aio.AbortError):
            raise
        except Exception:
            self.recorder.metrics.failures.inc(())
            self.director.log.exception("an exchange failed")
            raise
        finally:
            stream.close()

    async def _exchange(
        self, stream: ExchangeStream, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes | None:
        while True:
            data: object = await context.read()
            if not isinstance(data, bytes):
                return None
            answers = stream.take(wire.decode(data))
            if stream.queued is not None:
                answers += stream.resolve(await stream.queued)
            last = answers.pop() if stream.is_over and answers else None
            for answer in answers:
                await context.write(answer)
            if last is not None:
                return last


class _Handler(grpc.GenericRpcHandler):
    """Chooses by what the gateways turned out to do.

    On the wire the kinds of method are the same. In grpcio only a method with a single answer
    sends it together with the end of the stream.
    """

    def __init__(self, processor: ExternalProcessor) -> None:
        self._gateways = processor.gateways
        self._follow: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            processor.follow
        )
        self._leave: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(
            processor.follow_or_leave
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _MethodHandler | None:
        """The method's handler at this moment."""
        if handler_call_details.method != _METHOD:
            return None
        return self._leave if self._gateways.echo else self._follow
