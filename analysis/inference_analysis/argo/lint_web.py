"""Mistakes in the metric of Argo's Web provider. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from inference_analysis.argo.protocol import DEFAULT_ERROR_LIMIT, ERROR_RETRY_S, error_limit
from inference_analysis.argo.settings import analysis_document
from inference_analysis.durations import seconds
from inference_analysis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_AGAIN: Final = "Generate it again (`analysis template --provider web`)"


def web_problems(metric: Mapping[str, Any]) -> Iterator[str]:
    """What makes a verdict of this metric wrong, or come too early."""
    for name in ("failureLimit", "inconclusiveLimit"):
        if metric.get(name):
            yield f"{name} is {metric[name]}: a verdict would be taken for nothing. Set 0"
    body = metric["provider"]["web"].get("jsonBody") or {}
    values = body.get("config") or {}
    if "{{" in json.dumps(values):
        return
    try:
        settings = analysis_document({"prometheus": {"url": "http://server"}} | values, "config")
    except InputError as error:
        yield from error.problems
        return
    count = metric.get("count")
    if count is None:
        return
    try:
        interval = seconds(metric.get("interval"))
    except ValueError:
        return
    lasts = (int(count) - 1) * interval
    if lasts < settings.look.after:
        yield (
            f"count {count} and interval {metric['interval']} end {lasts:g} s after the first "
            f"measurement, and look.after is {settings.look.after:g} s: it would end before its "
            f"look. {_AGAIN}"
        )
    limit = int(metric.get("consecutiveErrorLimit", DEFAULT_ERROR_LIMIT))
    needed = error_limit(settings.retry_for, settings.max_wait)
    if limit < needed:
        waits = max(limit - DEFAULT_ERROR_LIMIT, 0) * ERROR_RETRY_S
        yield (
            f"consecutiveErrorLimit is {limit}: its last measurement can wait {waits:g} s, and "
            f"retryFor and maxWait are {settings.retry_for + settings.max_wait:g} s together. "
            f"{_AGAIN}, or set {needed}"
        )
