"""Series of the picker that begin while it is watched begin at 0.

A counter of the picker appears with its first request, so that its first sample is that request
already and no increment leads to it. A canary whose servers fail at once is ejected after three
requests: without this they would not be seen at all. A scrape of the same picker before the first
sample proves that the counter was not there, which means 0.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from inference_analysis.increments import Grid
    from inference_analysis.observations import FloatArray
    from inference_analysis.series import Series

Key = tuple[tuple[str, str], ...]
_PART: Final = frozenset(
    {
        *("__name__", "le", "version", "model_name", "target_model_name"),
        *("accounting", "phase", "bucket", "class", "reason"),
    }
)
_WHO: Final = frozenset({"endpoint", "exported_endpoint", "sample"})
"""What tells a server in an arm; all other labels tell the picker."""


def from_zero(found: Iterable[Sequence[Series]], grid: Grid) -> list[list[Series]]:
    """The same series, each with zeros before its first sample.

    ``found`` are all answers, because only together do they tell when a picker was scraped. Of each
    server in each sample the zeros cover the window of its first request, and none before.
    """
    answers = [list(answer) for answer in found]
    begun: dict[tuple[Key, Key], float] = {}
    times: dict[Key, list[FloatArray]] = defaultdict(list)
    for item in (item for answer in answers for item in answer if item.times.size):
        picker, server = _picker(item.labels), _server(item.labels)
        times[picker].append(item.times)
        first = float(item.times[0])
        begun[picker, server] = min(first, begun.get((picker, server), first))
    scrapes = {picker: np.unique(np.concatenate(parts)) for picker, parts in times.items()}
    return [
        [_filled(item, scrapes, begun, grid) if item.times.size else item for item in answer]
        for answer in answers
    ]


def _filled(
    item: Series,
    scrapes: Mapping[Key, FloatArray],
    begun: Mapping[tuple[Key, Key], float],
    grid: Grid,
) -> Series:
    picker = _picker(item.labels)
    known = scrapes[picker]
    first = begun[picker, _server(item.labels)]
    edge = first - (first - grid.start_s) % grid.seconds
    # From the scrape that tells the counter at the window's edge.
    start = max(0, int(np.searchsorted(known, edge, side="right")) - 1)
    before = known[start : np.searchsorted(known, item.times[0])]
    return replace(
        item,
        times=np.concatenate([before, item.times]),
        values=np.concatenate([np.zeros(before.size), item.values]),
    )


def _picker(labels: Mapping[str, str]) -> Key:
    return tuple(sorted((k, v) for k, v in labels.items() if k not in _PART | _WHO))


def _server(labels: Mapping[str, str]) -> Key:
    return tuple(sorted((k, v) for k, v in labels.items() if k in _WHO))
