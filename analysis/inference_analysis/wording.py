"""How numbers of a verdict are said, wherever they are shown."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


_IN_MINUTES: Final = 120.0
_IN_HOURS: Final = 48 * 60.0
UNKNOWN: Final = "\N{EN DASH}"


def title(document: Mapping[str, Any]) -> str:
    """Whose verdict this is."""
    rollout = document["rollout"]
    name = "/".join(part for part in (rollout["namespace"], rollout["name"]) if part)
    return " ".join(part for part in (name, "canary", rollout["canaryHash"]) if part)


def effect(value: float | None, scale: str) -> str:
    """A log ratio in per cent, or a difference in points; both signed, + is worse.

    >>> effect(0.0953, "log ratio"), effect(0.005, "difference")
    ('+10.0 %', '+0.50 points')
    """
    if value is None:
        return UNKNOWN
    if scale != "log ratio":
        return f"{100.0 * value:+.2f} points"
    if value > math.log(11.0):
        return "over +1000 %"
    return f"{100.0 * math.expm1(value):+.1f} %"


def number(value: float | None) -> str:
    """Three digits; a dash for what is not known."""
    return UNKNOWN if value is None else f"{value:.3g}"


def share(value: float) -> str:
    """A share in per cent."""
    return f"{100.0 * value:.3g} %"


def points(value: float | None) -> str:
    """A difference of shares in points, without a sign."""
    return UNKNOWN if value is None else f"{100.0 * value:.2f}"


def spoken(seconds: float) -> str:
    """A time to wait, in the unit that people say it in.

    >>> spoken(240.0), spoken(9000.0), spoken(200000.0)
    ('4 min', '3 h', '3 days')
    """
    minutes = seconds / 60.0
    if minutes <= _IN_MINUTES:
        return f"{math.ceil(minutes)} min"
    if minutes <= _IN_HOURS:
        return f"{math.ceil(minutes / 60.0)} h"
    return f"{math.ceil(minutes / 1440.0)} days"


def moment(seconds: float) -> str:
    """Seconds since the epoch as a time of day in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
