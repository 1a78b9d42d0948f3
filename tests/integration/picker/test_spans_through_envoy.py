"""Spans of requests through a real Envoy, as a collector gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from support.picker_rig import RECOMMENDED, running_setup

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_a_collector_gets_a_span_in_the_requests_own_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[ExportTraceServiceRequest] = []

    async def export(
        request: ExportTraceServiceRequest, _context: object
    ) -> ExportTraceServiceResponse:
        exported.append(request)
        return ExportTraceServiceResponse()

    collector = grpc.aio.server()
    method: grpc.RpcMethodHandler[ExportTraceServiceRequest, ExportTraceServiceResponse] = (
        grpc.unary_unary_rpc_method_handler(
            export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
    )
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Export": method})
    collector.add_generic_rpc_handlers((handler,))
    port = collector.add_insecure_port("127.0.0.1:0")
    await collector.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with running_setup(tmp_path, RECOMMENDED) as setup:
        parent = f"00-{TRACE}-b7ad6b7169203331-01"
        assert (await setup.chat(model="base", headers={"traceparent": parent}))[0] == 200
        await setup.landed()
        await setup.until(lambda: bool(exported))
    await collector.stop(grace=None)

    (span,) = exported[0].resource_spans[0].scope_spans[0].spans
    assert span.trace_id.hex() == TRACE
    assert span.name == "inference_picker.request"
    found = {each.key: each.value for each in span.attributes}
    assert found["http.response.status_code"].int_value == 200
    assert found["gen_ai.request.model"].string_value == "base"
    assert span.end_time_unix_nano > span.start_time_unix_nano
