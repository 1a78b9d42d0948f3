"""The scorers that come with the picker.

`LoadCostScorer` is the default policy. The others have the names and formulas of the Gateway API
Inference Extension's and llm-d-router's scorers, so that their configurations mean the same here.
Those read the metrics pages; this picker's own count is `pods.in_flight`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from inference_picker.sessions import TOKEN_HEADER, is_named, read_token

if TYPE_CHECKING:
    from inference_picker.ranking import Floats, Pods, SchedulingRequest

_MISS: Final = 2.0
"""How often uncached tokens count beside the work that they are."""


class LoadCostScorer:
    """The least (pending prefill tokens + the request's uncached tokens) x (batch + 1).

    LMetric (arXiv 2603.15202): the first factor is what stands before the first token, the
    second what each further token costs; their product needs no weights. Four additions:

    - tokens that the KV cache has no room for count as work: as many must leave first;
    - a request beyond the pod's seats waits until one is free, for it and for each before it: in
      that time as much could be computed elsewhere;
    - uncached tokens are work that the pool would not have where they are cached, and what they
      push out of a cache is computed again: they count twice more at the mean batch, and as often
      again as requests wait even at the least busy pod. Where nothing is cached this is the same
      for every pod. Without it full caches are copied over and never recover;
    - ``floorTokens`` keeps the product from vanishing where a prompt is cached everywhere, so
      that a hot prefix spreads over the pods by their batch.
    """

    def __init__(self, *, floorTokens: float = 64.0, kvShare: float = 0.95) -> None:  # noqa: N803
        """Take the least work of a request, and the part of the KV cache that may be filled."""
        self._floor = floorTokens
        self._kv_share = kvShare

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """Least cost / cost: 1 for the cheapest."""
        uncached = np.maximum(request.prompt_tokens - pods.cached_tokens, 0.0)
        held = pods.held_tokens + uncached + request.output_tokens
        overflow = np.maximum(held - self._kv_share * pods.kv_tokens, 0.0)
        seatless = np.maximum(pods.in_flight + 1.0 - pods.seats, 0.0)
        turns = seatless * (request.answer_tokens / pods.seats)
        work = pods.pending_tokens + uncached + overflow + turns + self._floor
        cost = work * (pods.in_flight + 1.0)
        queue = float(pods.pending_tokens.min()) / max(request.usual_tokens, self._floor)
        cost += _MISS * (queue + 1.0) * uncached * (pods.in_flight.mean() + 1.0)
        ratio: Floats = cost.min() / cost
        return ratio


class FewestRequestsScorer:
    """1 for the fewest requests in flight, 0 for the most, in proportion between."""

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """(most - n) / (most - fewest), and 1 where all are equal."""
        del request
        return _falling(pods.in_flight)


class QueueScorer:
    """``queue-scorer``: (max - q) / (max - min) of the queue lengths, 1 where all are equal."""

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """By the metrics pages."""
        del request
        return _falling(pods.waiting)


class RunningRequestsScorer:
    """``running-requests-size-scorer``: the same of the running requests."""

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """By the metrics pages."""
        del request
        return _falling(pods.running)


class KvCacheScorer:
    """``kv-cache-utilization-scorer``: 1 - usage."""

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """By the metrics pages."""
        del request
        return np.clip(1.0 - pods.kv_usage, 0.0, 1.0)


class PrefixCacheScorer:
    """``prefix-cache-scorer``: matched blocks / blocks of the prompt."""

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """0 for all where the prompt is shorter than a block."""
        if not request.blocks:
            return np.zeros(len(pods))
        return pods.cached_blocks / len(request.blocks)


class LoraAffinityScorer:
    """``lora-affinity-scorer``.

    1 where the adapter is in use, 0.8 where another one fits, 0.6 where requests wait for it,
    else 0.
    """

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """By the metrics pages."""
        target = request.target
        scores = [
            1.0
            if target in running
            else 0.8
            if len(running) + len(waiting) < most
            else 0.6
            if target in waiting
            else 0.0
            for running, waiting, most in zip(
                pods.adapters_running, pods.adapters_waiting, pods.max_adapters, strict=True
            )
        ]
        return np.array(scores)


class ActiveRequestScorer:
    """``active-request-scorer``.

    1 up to ``idleThreshold`` requests in flight, then (max - n) / max x ``maxBusyScore``.
    """

    def __init__(
        self,
        *,
        idleThreshold: int = 0,  # noqa: N803
        maxBusyScore: float = 1.0,  # noqa: N803
        requestTimeout: str = "",  # noqa: N803 - a request is over when it is over
    ) -> None:
        """Take llm-d-router's parameters."""
        del requestTimeout
        self._idle = idleThreshold
        self._busy = maxBusyScore

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """By this picker's count."""
        del request
        most = max(float(pods.in_flight.max()), 1.0)
        busy = (most - pods.in_flight) / most * self._busy
        return np.where(pods.in_flight <= self._idle, 1.0, np.clip(busy, 0.0, 1.0))


class LoadAwareScorer:
    """``load-aware-scorer``: 0.5 x (1 - queue / ``threshold``)."""

    def __init__(self, *, threshold: int = 128) -> None:
        """Take the queue length that scores 0."""
        self._threshold = max(1, threshold)

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """By the metrics pages."""
        del request
        return 0.5 * (1.0 - np.minimum(pods.waiting / self._threshold, 1.0))


class TokenLoadScorer:
    """``token-load-scorer``: 1 - tokens in flight / ``queueThresholdTokens``."""

    def __init__(self, *, queueThresholdTokens: int = 4_194_304) -> None:  # noqa: N803
        """Take the load that scores 0; the default is llm-d-router's."""
        self._threshold = max(1, queueThresholdTokens)

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """By this picker's count of prompt tokens that wait."""
        del request
        return 1.0 - np.minimum(pods.pending_tokens / self._threshold, 1.0)


class SessionAffinityScorer:
    """``session-affinity-scorer``: 1 for the session's pod, 0 for the others.

    The session's pod is the one that ``x-session-token`` names, which answers carry where this
    scorer is configured (`inference_picker.sessions`); else the one on which ``x-session-id``, or
    the header that is configured, falls by rendezvous hashing: every picker finds the same one,
    without a table, and a pod that comes or goes moves only its own sessions.
    """

    hands_out_tokens = True

    def __init__(self, *, header: str = "x-session-id") -> None:
        """Take the header's name."""
        self._header = header.lower()

    def score(self, request: SchedulingRequest, pods: Pods) -> Floats:
        """0 for all where the request has no session."""
        scores = np.zeros(len(pods))
        token = read_token(request.headers.get(TOKEN_HEADER, ""))
        if token is not None:
            scores[[is_named(each, token.endpoint) for each in pods.endpoints]] = 1.0
        if not scores.any() and (session := request.headers.get(self._header)):
            key = session.encode()
            ranks = [
                hashlib.blake2b(each.address.encode(), key=_short(key), digest_size=8).digest()
                for each in pods.endpoints
            ]
            scores[ranks.index(max(ranks))] = 1.0
        return scores


def _short(key: bytes) -> bytes:
    """A key that blake2b takes (64 bytes at most)."""
    return key if len(key) <= 64 else hashlib.blake2b(key).digest()  # noqa: PLR2004


def _falling(values: Floats) -> Floats:
    most, fewest = values.max(), values.min()
    if most == fewest:
        return np.ones(len(values))
    scores: Floats = (most - values) / (most - fewest)
    return scores
