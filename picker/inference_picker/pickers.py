"""The pickers that come with the picker: from scores to an order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_picker.ranking import Floats, Pods, SchedulingRequest

_ALIKE = 1e-9
"""Scores this near to each other are equal: their sums are rounded."""


class MaxScorePicker:
    """The highest score first.

    Of equals the one with the fewest requests, of those in turn; with ``ties: random`` any of the
    equals, as llm-d-router's picker does it.
    """

    def __init__(
        self,
        *,
        maxNumOfEndpoints: int = 1,  # noqa: N803 - as users write it
        ties: Literal["fewest-requests", "random"] = "fewest-requests",
    ) -> None:
        """Take how many endpoints the gateway is told at least."""
        if ties not in ("fewest-requests", "random"):
            raise ValueError(f"ties is {ties!r}; use fewest-requests or random")
        self._count = maxNumOfEndpoints
        self._ties = ties

    def pick(self, request: SchedulingRequest, pods: Pods, scores: Floats) -> Sequence[int]:
        """The best, then the next best."""
        best = np.flatnonzero(scores >= scores.max() - _ALIKE)
        if self._ties == "random":
            first = int(request.random.choice(best))
        else:
            if len(best) > 1:
                loads = pods.in_flight[best]
                best = best[loads == loads.min()]
            first = int(best[request.turn % len(best)])
        wanted = min(max(self._count, request.wanted), len(pods))
        if wanted == 1:
            return (first,)
        order = np.lexsort((pods.in_flight, -scores))
        return (first, *(int(each) for each in order if each != first))[:wanted]


class RandomPicker:
    """Any, whatever the scores say."""

    def __init__(self, *, maxNumOfEndpoints: int = 1) -> None:  # noqa: N803
        """Take how many endpoints the gateway is told at least."""
        self._count = maxNumOfEndpoints

    def pick(self, request: SchedulingRequest, pods: Pods, scores: Floats) -> Sequence[int]:
        """As many as are wanted, each as likely as the others."""
        del scores
        wanted = min(max(self._count, request.wanted), len(pods))
        return request.random.sample(range(len(pods)), wanted)


class WeightedRandomPicker:
    """Each with a chance in proportion to its score (A-Res: Efraimidis and Spirakis, 2006)."""

    def __init__(self, *, maxNumOfEndpoints: int = 1) -> None:  # noqa: N803
        """Take how many endpoints the gateway is told at least."""
        self._count = maxNumOfEndpoints

    def pick(self, request: SchedulingRequest, pods: Pods, scores: Floats) -> Sequence[int]:
        """As many as are wanted; those with score 0 behind all others."""
        keys = [
            math.log(1.0 - request.random.random()) / score if score > _ALIKE else -math.inf
            for score in scores
        ]
        wanted = min(max(self._count, request.wanted), len(pods))
        return sorted(range(len(pods)), key=lambda index: -keys[index])[:wanted]


class TwoChoicesPicker:
    """The better of two drawn at random (Mitzenmacher): robust where the scores are old."""

    def pick(self, request: SchedulingRequest, pods: Pods, scores: Floats) -> Sequence[int]:
        """The two drawn; the one with the higher score first, of equals the one drawn first."""
        drawn = request.random.sample(range(len(pods)), min(2, len(pods)))
        drawn.sort(key=lambda index: -scores[index])
        return drawn[: request.wanted]


class RoundRobinPicker:
    """One after the other, whatever the scores say."""

    def pick(self, request: SchedulingRequest, pods: Pods, scores: Floats) -> Sequence[int]:
        """The next ones in turn."""
        del scores
        count = len(pods)
        return [(request.turn + step) % count for step in range(min(request.wanted, count))]
