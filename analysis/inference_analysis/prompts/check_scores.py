"""What a check gives: a score in [0, 1], and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

SHOWN = 60
"""Characters of a text that a reason quotes."""
CONFIG: Final = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=False)
"""Of every check: its fields are the keys of a prompt set's ``checks``."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good an answer is by one check."""

    value: float
    """0 to 1."""
    reason: str


def quoted(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return repr(line if len(line) <= SHOWN else line[: SHOWN - 1] + "…")


def passed(ok: bool, reason: str) -> Score:  # noqa: FBT001 - what was found, then its words
    """1 or 0, and why."""
    return Score(value=float(ok), reason=reason)


def normalised(text: str) -> str:
    """Lower case, single spaces, without quotes around it and marks at its end."""
    return " ".join(text.lower().split()).strip(" \t\"'`*.!").strip()
