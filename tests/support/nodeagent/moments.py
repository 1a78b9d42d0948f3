"""Points in time as the Kubernetes API writes them."""

from __future__ import annotations

import datetime as dt


def now_utc() -> dt.datetime:
    """The present moment."""
    return dt.datetime.now(dt.UTC)


def text_of(moment: dt.datetime) -> str:
    """metav1.Time: RFC 3339 in UTC with whole seconds."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_text(moment: dt.datetime) -> str:
    """metav1.MicroTime: RFC 3339 in UTC with microseconds."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_of(text: str) -> dt.datetime:
    """Read either form."""
    return dt.datetime.fromisoformat(text)
