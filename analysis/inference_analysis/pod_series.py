"""One arm's answers to one query, as tables per pod."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from inference_analysis.aliases import HTTP_REQUESTS, PICKED_ERRORS, Kind
from inference_analysis.errors import InputError
from inference_analysis.series import Table, histogram_table, table, targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from inference_analysis.aliases import Family
    from inference_analysis.series import Series

FINISHED: Final = "finished"
FAILED: Final = "failed"
PICKED: Final = "picked"
COVERED: Final = "covered"
FAILURES: Final = frozenset({"5xx", "reset", "no-response", "malformed"})
"""The picker's classes of errors that are the server's; a 4xx is the client's."""
_SUFFIX: Final = re.compile(r"_(?:bucket|sum|count)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeries:
    """One pod's targets for one family."""

    name: str
    """The name that the pod's series have."""
    labels: Mapping[str, str]
    """Labels of one of them, for node and hardware."""
    tables: tuple[Table, ...]
    duplicates: int
    """Targets left out because they are copies."""


def by_pod(
    found: Sequence[Series],
    family: Family,
    *,
    pod_label: str,
    error_reasons: AbstractSet[str] = frozenset({"error"}),
) -> dict[str, PodSeries]:
    """The pods that have the family.

    Raises InputError for series without a pod, native histograms and broken buckets.
    """
    pods: dict[str, list[Series]] = defaultdict(list)
    for item in found:
        pod = item.labels.get(pod_label, "")
        if not pod:
            raise InputError(
                f"{item.name} has no label {pod_label!r}. Name the label that holds the pod's "
                "name by --pod-label, or add it to the scrape's relabeling"
            )
        pods[pod].append(item)
    result = {}
    for pod in sorted(pods):
        read = _read(pod, pods[pod], family, error_reasons)
        if read is not None:
            result[pod] = read
    return result


def _read(
    pod: str, found: Sequence[Series], family: Family, error_reasons: AbstractSet[str]
) -> PodSeries | None:
    if family.kind is Kind.PICKED:
        return _picked(found, family)
    used = _preferred(pod, found, family)
    if not used:
        return None

    def requests_column(item: Series) -> str | None:
        if item.name == HTTP_REQUESTS:
            answered = item.labels.get("handler", "").startswith("/v1/")
            return FAILED if answered and item.labels.get("status", "").startswith("5") else None
        reason = item.labels.get("finished_reason", item.labels.get("finish_reason", ""))
        return FAILED if reason in error_reasons else FINISHED

    if family.kind is Kind.REQUESTS:
        http = [item for item in found if item.name == HTTP_REQUESTS]
        kept, duplicates = targets([*used, *http])
        tables = [table(target, requests_column) for target in kept]
    else:
        kept, duplicates = targets(used)
        if family.kind is Kind.HISTOGRAM:
            tables = [histogram_table(target) for target in kept]
        else:
            tables = [table(target, lambda _: "value") for target in kept]
    return PodSeries(
        name=_stem(used[0], family),
        labels=used[0].labels,
        tables=tuple(tables),
        duplicates=duplicates,
    )


def _picked(found: Sequence[Series], family: Family) -> PodSeries | None:
    """The picker's counts of one pod: all, failed, and watched token by token."""
    used = [item for item in found if family.rank(item.name) == 0]
    if not used:
        return None
    failed = [
        item
        for item in found
        if item.name.endswith(PICKED_ERRORS) and item.labels.get("class") in FAILURES
    ]
    watched = {id(item) for item in used if item.labels.get("accounting") == "tokens"}
    kept, duplicates = targets([*used, *failed])
    tables = []
    for target in kept:
        everything = table(target, lambda i: FAILED if i.name.endswith(PICKED_ERRORS) else PICKED)
        covered = table(target, lambda i: COVERED if id(i) in watched else None)
        values = np.zeros((everything.times.size, 3))
        for at, column in enumerate((PICKED, FAILED)):
            if column in everything.columns:
                values[:, at] = everything.values[:, everything.columns.index(column)]
        if covered.columns:
            values[np.searchsorted(everything.times, covered.times), 2] = covered.values[:, 0]
        tables.append(
            Table(times=everything.times, columns=(PICKED, FAILED, COVERED), values=values)
        )
    return PodSeries(
        name=used[0].name, labels=used[0].labels, tables=tuple(tables), duplicates=duplicates
    )


def _preferred(pod: str, found: Sequence[Series], family: Family) -> list[Series]:
    """The series under the first of the family's names that the pod has."""
    stems: dict[str, list[Series]] = defaultdict(list)
    for item in found:
        if not item.native and family.rank(_stem(item, family)) is not None:
            stems[_stem(item, family)].append(item)
    if family.kind is Kind.HISTOGRAM:
        # Without buckets a name is that of a summary or of a counter.
        stems = {
            stem: items
            for stem, items in stems.items()
            if any(item.name.endswith("_bucket") for item in items)
        }
        native = [item.name for item in found if item.native]
        if native and not stems:
            raise InputError(
                f"{native[0]} of pod {pod} is a native histogram. Keep the classic buckets that "
                "the server exposes: scrape with always_scrape_classic_histograms: true and "
                "without convert_classic_histograms_to_nhcb"
            )
    return stems[min(stems, key=lambda stem: family.rank(stem) or 0)] if stems else []


def _stem(item: Series, family: Family) -> str:
    return _SUFFIX.sub("", item.name) if family.kind is Kind.HISTOGRAM else item.name
