"""From counters at scrapes to increments in windows.

A counter's value at a window's edge is that of the last scrape before it. Windows in which a
scrape gap or a restart lies have no value: what was counted between the last scrape and the
restart is lost, and Prometheus' own ``increase`` would make it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.observations import BoolArray, FloatArray
    from inference_analysis.series import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """W windows of equal length, and from when on samples were asked for."""

    since_s: float
    start_s: float
    seconds: float
    width: int

    @property
    def edges(self) -> FloatArray:
        """(W + 1,) edges of the windows."""
        steps = np.arange(self.width + 1, dtype=np.float64)
        return np.asarray(self.start_s + self.seconds * steps, dtype=np.float64)

    @property
    def end_s(self) -> float:
        """End of the last window."""
        return self.start_s + self.seconds * self.width


def increments(table: Table, grid: Grid) -> FloatArray:
    """(W, K) increments of each column; a row of NaN where there is no data."""
    first, last, held = _rows(table, grid)
    held &= np.cumsum(table.resets)[last] == np.cumsum(table.resets)[first]
    result: FloatArray = table.values[last] - table.values[first]
    result[~held] = np.nan
    return result


def means(table: Table, grid: Grid) -> FloatArray:
    """(W, K) mean of a gauge's samples in each window; NaN where there is none."""
    first, last, held = _rows(table, grid)
    sums = np.vstack([np.zeros((1, table.values.shape[1])), np.cumsum(table.values, axis=0)])
    taken = np.maximum(last - first, 1)
    result: FloatArray = (sums[last + 1] - sums[first + 1]) / taken[:, None]
    result[~held] = np.nan
    return result


def together(parts: Sequence[FloatArray], tables: Sequence[Table], grid: Grid) -> FloatArray:
    """(W, K) sum over the targets of one pod; NaN where one that is there has no data."""
    total = np.zeros_like(parts[0])
    anywhere = np.zeros(grid.width, dtype=np.bool_)
    for part, table in zip(parts, tables, strict=True):
        there = present(table, grid)
        anywhere |= there
        total[there] += part[there]
    total[~anywhere] = np.nan
    return total


def present(table: Table, grid: Grid) -> BoolArray:
    """(W,) whether a target had a scrape in the window, or so little before that it may still."""
    edges = grid.edges
    before = np.searchsorted(table.times, edges[:-1] - table.gap_s, side="left")
    until = np.searchsorted(table.times, edges[1:], side="right")
    found: BoolArray = until > before
    return found


def births(tables: Sequence[Table], grid: Grid) -> FloatArray:
    """Times at which a server began: its first scrape, and its first one after a restart.

    A target that was there when the samples begin may be of any age and counts as old.
    """
    times: list[float] = []
    for table in tables:
        if not table.times.size:
            continue
        if table.times[0] > grid.since_s + max(table.gap_s, 5.0):
            times.append(float(table.times[0]))
        times += table.times[table.resets].tolist()
    return np.unique(np.array(times))


def warming(begun: FloatArray, grid: Grid, warm_up_s: float) -> BoolArray:
    """(W,) windows that overlap the first ``warm_up_s`` seconds of a server's life."""
    edges = grid.edges
    starts, ends = edges[:-1, None], edges[1:, None]
    overlap: BoolArray = np.logical_and(starts < begun + warm_up_s, ends > begun)
    return overlap.any(axis=1, out=np.zeros(grid.width, dtype=np.bool_))


def _rows(table: Table, grid: Grid) -> tuple[np.ndarray, np.ndarray, BoolArray]:
    """Rows at each window's two edges, and whether scrapes go on between them without a gap."""
    if not table.times.size:
        nothing = np.zeros(grid.width, dtype=np.int64)
        return nothing, nothing, np.zeros(grid.width, dtype=np.bool_)
    edges = grid.edges
    rows = np.searchsorted(table.times, edges, side="right") - 1
    ages = edges - table.times[rows]
    fresh: BoolArray = np.logical_and(rows >= 0, ages <= table.gap_s)
    rows = np.maximum(rows, 0)
    gaps = np.concatenate([[0], np.cumsum(np.diff(table.times) > table.gap_s)])
    first, last = rows[:-1], rows[1:]
    held: BoolArray = np.logical_and(gaps[first] == gaps[last], last > first)
    return first, last, held & fresh[:-1] & fresh[1:]
