"""Filter, score, choose: from the endpoints of a pool to an order of preference.

Three small interfaces, as in the Gateway API Inference Extension's scheduler: a filter narrows
the candidates, a scorer rates them from 0 to 1 with 1 the best, a chooser orders them. A profile
puts them together. All of it is pure: candidates in, endpoints out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from inference_picker import subsets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_picker.pool import Endpoint, PoolSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingRequest:
    """What is known about a request when its endpoint is chosen."""

    target: str | None
    """Model name that will be sent to the server; None where no body was read."""
    headers: Mapping[str, str]
    subset: tuple[str, ...] | None = None
    turn: int = 0
    """Grows by one with each pick: lets equals take turns without randomness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An endpoint and its load at this moment."""

    endpoint: Endpoint
    in_flight: int


class Filter(Protocol):
    """Narrows the candidates."""

    def filter(
        self, request: SchedulingRequest, candidates: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        """Return some of the candidates, in their order."""
        ...


class Scorer(Protocol):
    """Rates the candidates."""

    def score(self, request: SchedulingRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return one number in [0, 1] for each candidate; 1 is best."""
        ...


class Chooser(Protocol):
    """Orders the rated candidates."""

    def choose(
        self,
        request: SchedulingRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],
    ) -> Sequence[Candidate]:
        """Return the best first, then the fallbacks."""
        ...


class SubsetFilter:
    """Keeps what the gateway's subset hint names. A hint that names nothing keeps nothing."""

    def filter(
        self, request: SchedulingRequest, candidates: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        """Return the candidates inside the hint, or all without one."""
        if request.subset is None:
            return candidates
        return [
            each for each in candidates if subsets.allows(request.subset, each.endpoint.address)
        ]


class LoadedModelFilter:
    """Keeps the endpoints that list the target model, if any is known to.

    Where none is, all stay: the list may be late, and an unknown name is the server's to refuse.
    """

    def filter(
        self, request: SchedulingRequest, candidates: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        """Return the endpoints with the model loaded, or all."""
        if request.target is None:
            return candidates
        loaded = [
            each
            for each in candidates
            if each.endpoint.models is not None and request.target in each.endpoint.models
        ]
        return loaded or candidates


class FewestRequestsScorer:
    """1 for the fewest requests in flight, 0 for the most, in proportion between."""

    def score(self, request: SchedulingRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return (most - n) / (most - fewest), and 1 where all are equal."""
        del request
        counts = [each.in_flight for each in candidates]
        most, fewest = max(counts), min(counts)
        if most == fewest:
            return [1.0] * len(counts)
        return [(most - count) / (most - fewest) for count in counts]


class BestInTurnChooser:
    """The highest score first; equals take turns."""

    def choose(
        self,
        request: SchedulingRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],
    ) -> Sequence[Candidate]:
        """Return all candidates by falling score, the equally best rotated by the turn."""
        order = sorted(range(len(candidates)), key=lambda index: -scores[index])
        best = sum(1 for score in scores if score == scores[order[0]])
        shift = request.turn % best
        order[:best] = order[shift:best] + order[:shift]
        return [candidates[index] for index in order]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Filters in order, scorers with weights, one chooser."""

    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    chooser: Chooser

    def order(
        self,
        request: SchedulingRequest,
        snapshot: PoolSnapshot,
        in_flight: Mapping[str, int],
    ) -> tuple[Endpoint, ...]:
        """Endpoints for the request, best first; empty where none may take it."""
        candidates: Sequence[Candidate] = [
            Candidate(endpoint=each, in_flight=in_flight.get(each.address, 0))
            for each in snapshot.endpoints
        ]
        for each_filter in self.filters:
            candidates = each_filter.filter(request, candidates)
        if not candidates:
            return ()
        totals = [0.0] * len(candidates)
        for scorer, weight in self.scorers:
            for index, score in enumerate(scorer.score(request, candidates)):
                totals[index] += weight * score
        chosen = self.chooser.choose(request, candidates, totals)
        return tuple(candidate.endpoint for candidate in chosen)


def default_profile() -> Profile:
    """Fewest requests in flight among the endpoints that have the model loaded."""
    return Profile(
        filters=(SubsetFilter(), LoadedModelFilter()),
        scorers=((FewestRequestsScorer(), 1.0),),
        chooser=BestInTurnChooser(),
    )
