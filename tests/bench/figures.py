"""Measured figures and the table they are shown in."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FILE_WIDTH: Final = 140
"""Columns of the table in a log, where rich would take 80 and break every line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. ``aim`` is what the project promises, empty where it promises none."""

    what: str
    value: str
    aim: str = ""
    note: str = ""
    met: bool = True


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of an unsorted, non-empty sample; ``share`` in (0, 1]."""
    return sorted(values)[ceil(share * len(values)) - 1]


def milliseconds(seconds: Sequence[float]) -> str:
    """``p50 / p99`` of durations in seconds, shown in milliseconds."""
    p50, p99 = (1000 * percentile(seconds, share) for share in (0.5, 0.99))
    return f"{p50:.2f} / {p99:.2f} ms"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval by the normal approximation; 0 wide for one value."""
    half = 1.96 * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return fmean(values), half


def show(title: str, figures: Iterable[Figure]) -> bool:
    """Print the table; returns whether every aim is met."""
    table = Table(title=title, title_justify="left")
    for heading in ("what", "measured", "aim", "", "note"):
        table.add_column(heading)
    met = True
    for figure in figures:
        met &= figure.met
        style = "" if figure.met else "bold red"
        verdict = ("met" if figure.met else "missed") if figure.aim else ""
        table.add_row(figure.what, figure.value, figure.aim, verdict, figure.note, style=style)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    console.print(table)
    return met
