"""Durations as Argo writes them: 30s, 10m, 1h30m."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

_PATTERN: Final = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds(value: Any) -> float:
    """Seconds of ``90s``, ``10m`` or ``1h30m``. Raises ValueError."""
    if isinstance(value, float):
        return value
    found = _PATTERN.fullmatch(value) if isinstance(value, str) else None
    if not value or found is None:
        message = f"{value!r} is no duration, e.g. 30s, 10m or 1h30m"
        raise ValueError(message)
    return sum(
        float(number) * unit
        for number, unit in zip(found.groups(), (3600.0, 60.0, 1.0), strict=True)
        if number
    )


Duration = Annotated[float, BeforeValidator(seconds), Field(gt=0)]
DurationOrNone = Annotated[float, BeforeValidator(seconds), Field(ge=0)]
