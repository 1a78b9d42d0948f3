"""A span for each request, where OpenTelemetry's environment variables name a collector.

A span is made when the request is over, from the times that were taken anyway: nothing is done
for it while a request waits.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from inference_picker.outcomes import failure_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider

    from inference_picker.messages import Finish, Reject

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NANO: Final = 1_000_000_000


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether a collector is named, and OpenTelemetry not switched off."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    none = environment.get("OTEL_TRACES_EXPORTER", "otlp").lower() == "none"
    return not off and not none and any(environment.get(name) for name in ENDPOINTS)


def exporting_provider() -> TracerProvider:
    """A provider that sends to the collector of the environment, in the background."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - slow
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME", "inference-picker")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Spans:
    """Makes spans with the request's own trace as their parent (W3C ``traceparent``)."""

    def __init__(self, provider: TracerProvider, pool: str = "") -> None:
        """Make spans of this pool's requests by this provider."""
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - where wanted
            TraceContextTextMapPropagator,
        )

        self._pool = pool
        self._tracer = provider.get_tracer("inference_picker")
        self._propagator = TraceContextTextMapPropagator()

    def finished(self, headers: Mapping[str, str], finish: Finish, at: float) -> None:
        """A span from the request's head to its end, which is ``at``, in Unix seconds."""
        from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415

        pick = finish.pick
        start = at - finish.duration_s
        span = self._tracer.start_span(
            "inference_picker.request",
            context=self._propagator.extract(dict(headers)),
            kind=SpanKind.SERVER,
            start_time=int(start * _NANO),
            attributes={
                # Names of OpenTelemetry's semantic conventions where they have one.
                "gen_ai.request.model": pick.model,
                "inference_picker.pool": self._pool,
                "inference_picker.target_model": pick.target,
                "inference_picker.version": pick.version,
                "inference_picker.sample": pick.sample,
                "inference_picker.ended": finish.ended,
                "server.address": finish.served or pick.endpoints[0],
            },
        )
        if finish.status is not None:
            span.set_attribute("http.response.status_code", finish.status)
        if finish.tokens is not None and finish.tokens.usage is not None:
            span.set_attribute("gen_ai.usage.input_tokens", finish.tokens.usage.prompt)
            span.set_attribute("gen_ai.usage.output_tokens", finish.tokens.usage.output)
        if finish.first_token_s is not None:
            first = int((start + finish.first_token_s) * _NANO)
            span.add_event("first token", timestamp=first)
        failure = failure_of(finish)
        if failure is not None:
            span.set_status(Status(StatusCode.ERROR, failure))
        span.end(int(at * _NANO))

    def refused(self, headers: Mapping[str, str], reject: Reject, at: float) -> None:
        """A span without length for a request that the picker answered itself."""
        from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415

        span = self._tracer.start_span(
            "inference_picker.request",
            context=self._propagator.extract(dict(headers)),
            kind=SpanKind.SERVER,
            start_time=int(at * _NANO),
            attributes={
                "inference_picker.pool": self._pool,
                "http.response.status_code": reject.status,
            },
        )
        span.set_status(Status(StatusCode.ERROR, str(reject.reason)))
        span.end(int(at * _NANO))
