"""The least that a Python server can do for an exchange: parse, and answer with a fixed endpoint.

What the picker costs above it is what choosing, counting and recording cost.
"""

from __future__ import annotations

import asyncio
import json

import grpc
import uvloop

from inference_picker import wire
from inference_picker.bodies import content_of
from inference_picker.chunks import chunked
from inference_picker.messages import (
    AnswerRequestBody,
    AnswerRequestHeaders,
    AnswerResponseHeaders,
    BodyMode,
    RequestBody,
    RequestHeaders,
    Route,
    StreamRequestBody,
)

ROUTE = Route(destination="127.0.1.1:8000")


async def process(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    """One exchange in BUFFERED or FULL_DUPLEX_STREAMED."""
    chunks: list[bytes] = []
    duplex = False
    while True:
        data: object = await context.read()
        if not isinstance(data, bytes):
            return
        event = wire.decode(data)
        if isinstance(event, RequestHeaders):
            duplex = event.request_body_mode is BodyMode.FULL_DUPLEX_STREAMED
            if not duplex:
                await context.write(wire.encode(AnswerRequestHeaders()))
        elif isinstance(event, RequestBody):
            chunks.append(event.chunk)
            if not event.end_of_stream:
                continue
            body = b"".join(chunks)
            content_of(body)
            if not duplex:
                await context.write(wire.encode(AnswerRequestBody(route=ROUTE)))
                continue
            await context.write(wire.encode(AnswerRequestHeaders(route=ROUTE)))
            for piece, last in chunked(body):
                await context.write(wire.encode(StreamRequestBody(chunk=piece, end_of_stream=last)))
            return
        else:
            await context.write(wire.encode(AnswerResponseHeaders()))


async def serve() -> None:
    """Print the port as a JSON line, then serve for ever."""
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1),))
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(process)
    handler = grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps([port]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
