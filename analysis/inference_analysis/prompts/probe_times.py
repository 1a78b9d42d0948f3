"""Windows in which prompts were sent are no measurement of the traffic.

The prober sends as many prompts to one canary pod as to all stable ones, and they stand in the
pods' own histograms: with a fifth of the requests from probes an equal version looked 12 % slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.schema import CellsDocument, PodDocument

Span = tuple[float, float]
"""Beginning and end in seconds since the epoch."""


def without_probes(cells: CellsDocument, spans: Sequence[Span]) -> CellsDocument:
    """The cells with all windows that a span touches marked as warm-up, for all pods alike.

    A count is seen at the next scrape. Windows are at least two scrapes long, so half a window more
    at the end is enough.
    """
    windows = zip(cells.windows.start, cells.windows.seconds, strict=True)
    touched = [
        any(start < end + length / 2 and start + length > begin for begin, end in spans)
        for start, length in windows
    ]
    if not any(touched):
        return cells

    def marked(pods: Sequence[PodDocument]) -> list[PodDocument]:
        return [
            pod.model_copy(
                update={
                    "warm_up": [
                        was or now
                        for was, now in zip(
                            pod.warm_up or [False] * len(touched), touched, strict=True
                        )
                    ]
                }
            )
            for pod in pods
        ]

    return cells.model_copy(update={"pods": marked(cells.pods), "sticky": marked(cells.sticky)})
