"""One pod of the cells file: its increments, as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inference_analysis import increments as inc
from inference_analysis.aliases import Kind
from inference_analysis.errors import InputError
from inference_analysis.pod_series import FAILED, FINISHED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_analysis.aliases import Family
    from inference_analysis.capture_settings import CaptureSettings
    from inference_analysis.increments import Grid
    from inference_analysis.observations import Arm, BoolArray, FloatArray
    from inference_analysis.pod_series import PodSeries
    from inference_analysis.series import Table


def pod_cells(
    name: str,
    arm: Arm,
    of_pod: Mapping[str, PodSeries],
    families: Sequence[Family],
    settings: CaptureSettings,
) -> tuple[dict[str, Any] | None, list[str]]:
    """One pod of the cells file, or None when it has no data in any window."""
    grid = settings.grid
    counters = [
        table
        for family in families
        if family.kind is not Kind.GAUGE and family.metric in of_pod
        for table in of_pod[family.metric].tables
    ]
    begun = inc.births(counters, grid)
    warm_up = inc.warming(begun, grid, settings.warm_up_s)
    labels = next(iter(of_pod.values())).labels
    cells: dict[str, Any] = {
        "name": name,
        "arm": arm.value,
        "node": labels.get(settings.node_label, ""),
        "hardware": labels.get(settings.hardware_label, ""),
        "warmUp": warm_up.tolist(),
        "histograms": {},
    }
    held: BoolArray = np.ones(grid.width, dtype=np.bool_)
    for family in families:
        if family.metric not in of_pod:
            continue
        tables = of_pod[family.metric].tables
        if family.kind is Kind.HISTOGRAM:
            values = _increments(name, family.metric, tables, grid)
            cells["histograms"][family.metric] = _histogram(
                f"{family.metric} of pod {name}", values, tables[0]
            )
        elif family.kind is Kind.REQUESTS:
            values = _increments(name, family.metric, tables, grid, columns=(FINISHED, FAILED))
            cells["requests"] = _whole(f"requests of pod {name}", values.sum(axis=1))
            cells["errors"] = _whole(f"errors of pod {name}", values[:, 1])
        elif family.kind is Kind.PICKED:
            values = _increments(name, family.metric, tables, grid)
            cells["requests"] = _whole(f"requests of pod {name}", values[:, 0])
            # A scrape may fall between the two counters of one request.
            failed = np.minimum(values[:, 1], values[:, 0])
            cells["errors"] = _whole(f"errors of pod {name}", failed)
            watched = np.minimum(values[:, 2], values[:, 0])
            cells["covered"] = _whole(f"watched answers of pod {name}", watched)
        elif family.kind is Kind.COUNTER:
            values = _increments(name, family.metric, tables, grid)
            cells[family.metric] = _optional(values[:, 0])
            continue
        else:
            parts = [inc.means(table, grid) for table in tables]
            cells[family.metric] = _optional(inc.together(parts, tables, grid)[:, 0])
            continue
        held &= ~np.isnan(values[:, 0])
    notes = []
    usable = int((held & ~warm_up).sum())
    if usable < grid.width:
        notes.append(
            f"{arm} pod {name}: {usable} of {grid.width} windows usable "
            f"({int((~held).sum())} without data, {int((held & warm_up).sum())} warming up)"
        )
    return (cells if held.any() else None), notes


def _increments(
    pod: str,
    metric: str,
    tables: Sequence[Table],
    grid: Grid,
    columns: Sequence[str] | None = None,
) -> FloatArray:
    """(W, K) increments of one pod; with ``columns`` exactly these, absent ones 0."""
    if columns is None and len({table.columns for table in tables}) > 1:
        raise InputError(
            f"{metric} of pod {pod}: its servers have different bucket edges. Give all engines "
            "of a pod the same configuration"
        )
    parts = []
    for table in tables:
        part = inc.increments(table, grid)
        if columns is not None:
            rows = np.zeros((grid.width, len(columns)))
            for at, column in enumerate(columns):
                if column in table.columns:
                    rows[:, at] = part[:, table.columns.index(column)]
            rows[np.isnan(part).any(axis=1)] = np.nan
            part = rows
        parts.append(part)
    return inc.together(parts, tables, grid)


def _histogram(what: str, values: FloatArray, table: Table) -> dict[str, Any]:
    """The cells of one histogram; the columns are cumulated buckets, then the sum."""
    buckets = np.diff(values[:, :-1], axis=1, prepend=0.0)
    counts = _whole(what, values[:, -2])
    rows = [_whole(what, column) for column in buckets.T]
    return {
        "le": [edge for edge in table.columns if isinstance(edge, float) and np.isfinite(edge)],
        "count": counts,
        # Servers raise the sum before the count, so that a scrape in between sees half of it.
        "sum": [
            None if count is None else 0.0 if count == 0 else round(float(total), 9)
            for count, total in zip(counts, values[:, -1], strict=True)
        ],
        "buckets": [
            None if count is None else list(row)
            for count, row in zip(counts, zip(*rows, strict=True), strict=True)
        ],
    }


def _whole(what: str, values: FloatArray) -> list[int | None]:
    """Counts as integers, null for NaN; raises InputError for parts of requests."""
    known = values[~np.isnan(values)]
    if (np.abs(known - np.rint(known)) > 1e-6).any() or (known < 0).any():  # noqa: PLR2004
        raise InputError(
            f"{what}: increments are no whole numbers. Expected raw counters; is a recording "
            "rule or a downsampled store behind this name?"
        )
    return [None if np.isnan(value) else round(float(value)) for value in values]


def _optional(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]
