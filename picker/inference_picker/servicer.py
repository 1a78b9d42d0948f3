"""The ext_proc service: one exchange for each gRPC stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc
import structlog

from inference_picker import wire
from inference_picker.errors import PeerProtocolError
from inference_picker.exchange import DEFAULT_MAX_BODY_BYTES, Exchange
from inference_picker.messages import (
    ChooseTarget,
    Finish,
    Picked,
    PickEndpoint,
    Refused,
    Reject,
    Retargeted,
    StreamClosed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_picker.director import Director
    from inference_picker.flights import Flight
    from inference_picker.messages import Event

_log = structlog.get_logger(__name__)


class _Stream:
    """One exchange and what it holds: its flight is landed on every path, once."""

    __slots__ = ("_clock", "_director", "_exchange", "_flight")

    def __init__(self, director: Director, exchange: Exchange, clock: Callable[[], float]) -> None:
        self._director = director
        self._exchange = exchange
        self._clock = clock
        self._flight: Flight | None = None

    def take(self, event: Event) -> list[bytes]:
        """The messages for Envoy that an event leads to."""
        answers: list[bytes] = []
        events = [event]
        while events:
            for command in self._exchange.receive(events.pop(), at=self._clock()):
                match command:
                    case PickEndpoint():
                        events.append(self._pick(command))
                    case ChooseTarget():
                        found = self._director.retarget(command)
                        events.append(
                            found if isinstance(found, Refused) else Retargeted(pick=found)
                        )
                    case Finish():
                        self._finish(command)
                    case Reject():
                        self._director.refused(command.reason)
                        _log.info(
                            "request refused",
                            status=command.status,
                            reason=str(command.reason),
                            message=command.message,
                        )
                        answers.append(wire.encode(command))
                    case _:
                        answers.append(wire.encode(command))
        return answers

    def close(self) -> None:
        """Close the books, whatever happened before."""
        try:
            self.take(StreamClosed())
        finally:
            if self._flight is not None:
                self._flight.land()

    def _pick(self, question: PickEndpoint) -> Event:
        found = self._director.pick(question)
        if isinstance(found, Refused):
            return found
        pick, self._flight = found
        return Picked(pick=pick)

    def _finish(self, finish: Finish) -> None:
        if self._flight is not None:
            self._flight.land()
        self._director.finish(finish)


class ExternalProcessor:
    """Envoy's ext_proc service over a director."""

    def __init__(
        self,
        director: Director,
        *,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve exchanges with this director."""
        self._director = director
        self._max_body_bytes = max_body_bytes
        self._clock = clock

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler to register at a server: messages stay bytes up to `wire`."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            self.process
        )
        return grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: method})

    async def process(
        self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        """Run one exchange until Envoy ends its stream."""
        exchange = Exchange(max_body_bytes=self._max_body_bytes)
        stream = _Stream(self._director, exchange, self._clock)
        try:
            while isinstance(data := await context.read(), bytes):
                for answer in stream.take(wire.decode(data)):
                    await context.write(answer)
        except PeerProtocolError as error:
            self._director.metrics.protocol_errors.inc()
            _log.warning("the gateway broke the protocol", error=str(error))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            stream.close()
