"""Properties of differences, over any scrapes and any counter."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inference_analysis.increments import Grid, births, increments, means, warming
from inference_analysis.series import Table

SECONDS = 60.0
STEPS = st.lists(st.integers(0, 50), min_size=30, max_size=120)
JITTER = st.floats(0.0, 0.9)


def counter(steps: list[int], jitter: float, restart: int | None = None) -> Table:
    """One scrape about every ten seconds, each later than due by a share of a second."""
    times = 10.0 * np.arange(len(steps)) + jitter * (np.arange(len(steps)) % 3)
    values = np.cumsum(steps, dtype=np.float64)
    if restart is not None:
        values[restart:] -= values[restart]
    return Table(times=times, columns=("n",), values=values[:, None])


def grid(table: Table) -> Grid:
    width = max(1, int((table.times[-1] - 20.0) // SECONDS))
    return Grid(since_s=-10.0, start_s=10.0, seconds=SECONDS, width=width)


@given(STEPS, JITTER)
def test_increments_of_all_windows_add_up_to_what_was_counted(
    steps: list[int], jitter: float
) -> None:
    table = counter(steps, jitter)
    windows = grid(table)
    first, last = np.searchsorted(table.times, windows.edges[[0, -1]], side="right") - 1
    found = increments(table, windows)[:, 0]
    assert (found >= 0).all()
    assert found.sum() == table.values[last, 0] - table.values[first, 0]


@given(STEPS, JITTER, st.data())
def test_restart_costs_at_most_one_window_and_no_count_is_negative(
    steps: list[int], jitter: float, data: st.DataObject
) -> None:
    restart = data.draw(st.integers(1, len(steps) - 1))
    table = counter(steps, jitter, restart)
    found = increments(table, grid(table))[:, 0]
    assert not (found < 0).any()
    assert np.isnan(found).sum() <= 1


@given(STEPS, st.data())
def test_windows_from_a_restart_until_it_is_warm_are_flagged(
    steps: list[int], data: st.DataObject
) -> None:
    restart = data.draw(st.integers(1, len(steps) - 1))
    table = counter([step + 1 for step in steps], 0.0, restart)
    windows = grid(table)
    at = table.times[restart]
    starts, ends = windows.edges[:-1], windows.edges[1:]
    expected = (ends > at) & (starts < at + 90.0)
    assert (warming(births([table], windows), windows, 90.0) == expected).all()


@given(st.lists(st.integers(0, 9), min_size=30, max_size=60))
def test_mean_of_a_gauge_lies_between_its_samples(levels: list[int]) -> None:
    times = np.arange(0.0, 10.0 * len(levels), 10.0)
    table = Table(times=times, columns=("n",), values=np.array(levels, dtype=np.float64)[:, None])
    windows = grid(table)
    for start, mean in zip(windows.edges[:-1], means(table, windows)[:, 0], strict=True):
        inside = table.values[(times > start) & (times <= start + SECONDS), 0]
        assert mean == np.mean(inside)
