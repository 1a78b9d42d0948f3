"""Filter, score, pick: from the endpoints of a pool to an order of preference.

Three small interfaces, as in the Gateway API Inference Extension's scheduler: a filter narrows
the candidates, a scorer rates them from 0 to 1 with 1 the best, a picker orders them. A profile
puts them together. All of it is pure: the state of the pods and a request in, indexes out; what
is random comes with the request.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference_picker.decisions import Considered, Decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_picker.pool import Endpoint

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

_EXPLAINED = 10
"""So many candidates of a decision are written down, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingRequest:
    """What is known about a request when its endpoint is chosen."""

    target: str | None = None
    """Model name that will be sent to the server; None where no body was read."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    subset: tuple[str, ...] | None = None
    among: tuple[Endpoint, ...] | None = None
    """The only endpoints that may be ranked; None where all may."""
    prompt_tokens: int = 0
    """Estimated length of the prompt."""
    output_tokens: int = 0
    """Expected length of the answer."""
    usual_tokens: float = 0.0
    """Prompt tokens that a request of this pool has to compute, on average."""
    answer_tokens: float = 0.0
    """Prompt tokens that an endpoint computes, by the learned rate, while it gives an answer."""
    blocks: tuple[int, ...] = ()
    """Chained hashes of the prompt's blocks; see `prompts.Prompt`."""
    turn: int = 0
    """Grows by one with each pick: lets equals take turns without randomness."""
    random: Random = field(default_factory=Random)
    wanted: int = 1
    """How many endpoints the gateway is told, the first choice included."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pods:
    """The candidates and their state at this moment, one column per fact.

    All columns are in the order of ``endpoints`` and as long. What a metrics page says is 0 where
    none has been read, and `kv_tokens` and `seats` are infinite.
    """

    endpoints: NDArray[np.object_]
    """`inference_picker.pool.Endpoint` of each."""
    in_flight: Floats
    """Requests in flight: this picker's own, and those of others that the pod's metrics show."""
    pending_tokens: Floats
    """Prompt tokens of those requests that wait for their prefill."""
    held_tokens: Floats
    """Tokens in the KV cache that belong to requests in flight."""
    kv_tokens: Floats
    """Tokens that the KV cache can hold."""
    seats: Floats
    """The most requests that are served at once; others wait. Infinite until seen on its pages."""
    cached_blocks: Floats
    """Leading blocks of this request's prompt that the pod should have in its prefix cache."""
    cached_tokens: Floats
    """The tokens in them."""
    health: Floats
    """1; less within slow start; 0 while ejected."""
    waiting: Floats
    """Requests that the metrics page says are queued."""
    running: Floats
    """Requests that the metrics page says are in the batch."""
    kv_usage: Floats
    """Share of the KV cache in use by the metrics page, 0 to 1."""
    adapters_running: NDArray[np.object_]
    """frozenset of the adapters that requests in the batch use."""
    adapters_waiting: NDArray[np.object_]
    """frozenset of the adapters that queued requests wait for."""
    max_adapters: Floats
    """Adapters that fit into a batch; 0 where unknown."""

    def __len__(self) -> int:
        return len(self.endpoints)

    def take(self, chosen: Mask | NDArray[np.intp]) -> Pods:
        """The chosen candidates, by a mask or by indexes."""
        return Pods(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})


class Filter(Protocol):
    """Narrows the candidates."""

    def filter(self, request: SchedulingRequest, pods: Pods) -> Sequence[bool] | Mask:
        """Return for each candidate whether it stays."""
        ...


class Scorer(Protocol):
    """Rates the candidates."""

    def score(self, request: SchedulingRequest, pods: Pods) -> Sequence[float] | Floats:
        """Return one number in [0, 1] for each candidate; 1 is best."""
        ...


class Picker(Protocol):
    """Orders the rated candidates."""

    def pick(self, request: SchedulingRequest, pods: Pods, scores: Floats) -> Sequence[int]:
        """Return indexes of candidates, the best first, then the fallbacks."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A plugin under the name that the configuration gives it."""

    name: str
    plugin: Any
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Endpoints for a request, best first; empty where none may take it."""

    endpoints: tuple[Endpoint, ...] = ()
    rows: tuple[int, ...] = ()
    """Index of each in the pods that were ranked."""
    decision: Decision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Filters in order, scorers with weights, one picker."""

    name: str
    filters: tuple[Named, ...]
    scorers: tuple[Named, ...]
    picker: Named

    def rank(self, request: SchedulingRequest, pods: Pods, *, explain: bool = False) -> Ranking:
        """Rank the pods for the request; with ``explain`` say why."""
        left = np.arange(len(pods), dtype=np.intp)
        candidates = pods
        removed: dict[str, tuple[str, ...]] = {}
        for each in self.filters:
            mask = np.asarray(each.plugin.filter(request, candidates), dtype=np.bool_)
            if np.count_nonzero(mask) == len(mask):
                continue
            if explain:
                removed[each.name] = _addresses(candidates.endpoints[~mask])
            left = left[mask]
            candidates = candidates.take(mask)
        if not len(candidates):
            return Ranking(decision=self._decision(removed, (), ()) if explain else None)
        totals = np.zeros(len(candidates))
        parts: dict[str, Floats] = {}
        for each in self.scorers:
            score = np.asarray(each.plugin.score(request, candidates), dtype=np.float64)
            parts[each.name] = score
            totals += each.weight * score
        totals *= candidates.health
        order = self.picker.plugin.pick(request, candidates, totals)
        chosen = tuple(candidates.endpoints[index] for index in order)
        decision = None
        if explain:
            listed = _best_first(order, totals)
            considered = tuple(
                Considered.of(candidates, index, totals[index], parts) for index in listed
            )
            decision = self._decision(removed, considered, _addresses(chosen))
        return Ranking(
            endpoints=chosen, rows=tuple(int(left[index]) for index in order), decision=decision
        )

    def _decision(
        self,
        removed: dict[str, tuple[str, ...]],
        considered: tuple[Considered, ...],
        chosen: tuple[str, ...],
    ) -> Decision:
        return Decision(profile=self.name, removed=removed, considered=considered, chosen=chosen)


def _addresses(endpoints: Sequence[Endpoint] | NDArray[np.object_]) -> tuple[str, ...]:
    return tuple(each.address for each in endpoints)


def _best_first(order: Sequence[int], totals: Floats) -> list[int]:
    """The chosen ones, then the best of the others, `_EXPLAINED` in all."""
    rest = [int(index) for index in np.argsort(-totals, kind="stable") if index not in order]
    return [*order, *rest][:_EXPLAINED]
