"""Faults that can be asked for by flag, environment, request header or POST /faults.

One text form for the first three: `slow_factor=1.5,error_rate=0.1`, with the short words
`error`, `hang`, `cut`, `worse` (rate 1) and `slow` (factor 3).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

ENVIRONMENT_VARIABLE = "SIMULATED_VLLM_FAULTS"
HEADER = "x-fault"

_SHORT = {
    "error": ("error_rate", 1.0),
    "hang": ("hang_rate", 1.0),
    "cut": ("cut_rate", 1.0),
    "worse": ("worse_answers", 1.0),
    "slow": ("slow_factor", 3.0),
}


class FaultError(ValueError):
    """A fault that does not exist or has a value that it can't have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong. Rates are shares of requests, 0 to 1."""

    slow_factor: float = 1.0
    """Prefill and decode take this many times as long."""
    error_rate: float = 0.0
    error_status: int = 500
    hang_rate: float = 0.0
    """Requests that are accepted and never answered."""
    cut_rate: float = 0.0
    """Requests whose connection is dropped half-way through the answer."""
    worse_answers: float = 0.0
    """Requests with a bad answer, drawn one by one."""
    wrong_share: float = 0.0
    """Prompts with a bad answer: the same ones whenever they are asked."""
    unhealthy: bool = False
    """/health answers 503 while everything else works."""
    models: tuple[str, ...] = ()
    """Only requests for these names suffer; empty: all."""

    def __post_init__(self) -> None:
        for name in ("error_rate", "hang_rate", "cut_rate", "worse_answers", "wrong_share"):
            rate = getattr(self, name)
            if not 0 <= rate <= 1:
                raise FaultError(f"fault {name}: found {rate}, expected a share from 0 to 1")
        if self.slow_factor < 1:
            raise FaultError(f"fault slow_factor: found {self.slow_factor}, expected at least 1")
        if not 400 <= self.error_status <= 599:
            raise FaultError(f"fault error_status: found {self.error_status}, expected 400 to 599")

    def merged(self, changes: Mapping[str, object]) -> Faults:
        """These faults with some replaced.

        Raises FaultError for an unknown name or a value of the wrong type or range.
        """
        known = {field.name: field for field in dataclasses.fields(self)}
        values: dict[str, object] = {}
        for name, value in changes.items():
            if name not in known:
                raise FaultError(f"unknown fault {name!r}, known are {', '.join(sorted(known))}")
            values[name] = _converted(name, value)
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]

    def for_request(self, model: str, header: str | None) -> Faults:
        """The faults that a request for `model` meets; its own header comes on top."""
        own = self if not self.models or model in self.models else Faults()
        return own if not header else own.merged(parse_faults(header))

    def draw(self, random: Random) -> Drawn:
        """What happens to one request. The draws are exclusive, in this order."""
        point = random.random()
        error = point < self.error_rate
        hang = not error and random.random() < self.hang_rate
        cut = not error and not hang and random.random() < self.cut_rate
        return Drawn(error=error, hang=hang, cut=cut, worse=random.random() < self.worse_answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The fate of one request."""

    error: bool
    hang: bool
    cut: bool
    worse: bool


def parse_faults(text: str) -> dict[str, object]:
    """Names and raw values of `name=value,word` lists, short words and `slow=2` resolved."""
    changes: dict[str, object] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        name = name.strip()
        if name in _SHORT:
            long_name, default = _SHORT[name]
            changes[long_name] = value.strip() if equals else default
        elif name == "models":
            changes[name] = tuple(filter(None, value.strip().split("+")))
        else:
            changes[name] = value.strip() if equals else True
    return changes


def _converted(name: str, value: object) -> object:
    if name == "models":
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise FaultError(f"fault models: found {value!r}, expected a list of model names")
        return tuple(str(item) for item in value)
    if name == "unhealthy":
        if isinstance(value, bool):
            return value
        if str(value).lower() in {"true", "false"}:
            return str(value).lower() == "true"
        raise FaultError(f"fault unhealthy: found {value!r}, expected true or false")
    kind = int if name == "error_status" else float
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FaultError(f"fault {name}: found {value!r}, expected a number")
    try:
        return kind(value)
    except ValueError as error:
        raise FaultError(f"fault {name}: found {value!r}, expected a number") from error
