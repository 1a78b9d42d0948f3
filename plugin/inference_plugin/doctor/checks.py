"""What doctor answers: one line per thing that was looked at."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any


class Status(enum.StrEnum):
    """How it is; SKIPPED could not be looked at from here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. ``remedy`` is empty where nothing is to be done."""

    name: str
    status: Status
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The check with plain values."""
        return asdict(self) | {"status": self.status.value}


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name=name, status=Status.OK, found=found)


def warn(name: str, found: str, remedy: str) -> Check:
    """It works, but not as it might in a bad moment."""
    return Check(name=name, status=Status.WARN, found=found, remedy=remedy)


def fail(name: str, found: str, remedy: str) -> Check:
    """It can't work."""
    return Check(name=name, status=Status.FAIL, found=found, remedy=remedy)


def skipped(name: str, found: str, remedy: str) -> Check:
    """It can't be seen from here."""
    return Check(name=name, status=Status.SKIPPED, found=found, remedy=remedy)
