"""Spans: the request's own trace, its times, its outcome; and nothing unless it is asked for."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from inference_picker.messages import Ended, Finish, Pick, Reason, Reject
from inference_picker.tracing import Spans, wanted

# The example of the W3C Trace Context recommendation.
PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
PICK = Pick(endpoints=("10.0.0.1:80",), model="chat", target="v1", version="old")


def made() -> tuple[Spans, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider), exporter


def test_a_span_has_the_requests_trace_and_times() -> None:
    spans, exporter = made()
    finish = Finish(
        pick=PICK, ended=Ended.COMPLETE, duration_s=0.5, status=200, first_token_s=0.125
    )

    spans.finished(PARENT, finish, at=1_000.0)

    (span,) = exporter.get_finished_spans()
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert (span.start_time, span.end_time) == (999_500_000_000, 1_000_000_000_000)
    assert span.events[0].timestamp == 999_625_000_000
    assert span.attributes is not None
    assert span.attributes["server.address"] == "10.0.0.1:80"
    assert span.attributes["http.response.status_code"] == 200
    assert span.status.status_code is StatusCode.UNSET


def test_a_failure_is_the_spans_status() -> None:
    spans, exporter = made()

    spans.finished({}, Finish(pick=PICK, ended=Ended.RESET, duration_s=1.0), at=5.0)
    spans.refused({}, Reject(status=503, reason=Reason.NO_ENDPOINTS, message=""), at=6.0)

    found = [each.status for each in exporter.get_finished_spans()]
    assert [(status.status_code, status.description) for status in found] == [
        (StatusCode.ERROR, "reset"),
        (StatusCode.ERROR, "rejected-no-endpoints"),
    ]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_spans_are_made_only_where_a_collector_is_named(
    environment: dict[str, str], expected: bool
) -> None:
    assert wanted(environment) is expected
