"""The workloads that policies are compared on, drawn from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Final

from inference_picker.simulation.engine import BLOCK_TOKENS, Hardware
from inference_picker.simulation.traces import TracedRequest, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PREFIXES: Final = 640
"""Shared prefixes: together four fifths of what all eight caches hold, if each is in one only."""
_FEW_PREFIXES: Final = 256
"""Together two and a half times what one pod's cache holds."""
_PREFIX_TOKENS: Final = 4_000
_HOT_PREFIXES: Final = 64
_HOT_TOKENS: Final = 768
_BURST: Final = 16
_THINKING_S: Final = 8.0
_TURNS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Arrivals and the pool they meet."""

    name: str
    what: str
    rate: float
    """Requests per second."""
    draw: Callable[[Random, float, float], Iterator[TracedRequest]]
    """Requests from a source of randomness, a rate and a duration in seconds."""
    pods: tuple[Hardware, ...] = field(default_factory=lambda: (Hardware(),) * 8)
    scrape_s: float = 0.05

    def requests(
        self, *, seed: int, duration_s: float, rate: float | None = None
    ) -> list[TracedRequest]:
        """The requests of one run, by time."""
        drawn = self.draw(Random(seed), self.rate if rate is None else rate, duration_s)  # noqa: S311
        return sorted(drawn, key=lambda each: each.at)


def _lengths(random: Random, median: float, spread: float, most: int) -> int:
    return max(4, min(most, round(random.lognormvariate(math.log(median), spread))))


def _arrivals(random: Random, rate: float, duration_s: float) -> Iterator[float]:
    at = random.expovariate(rate)
    while at < duration_s:
        yield at
        at += random.expovariate(rate)


def plain(random: Random, rate: float, duration_s: float) -> Iterator[TracedRequest]:
    """Poisson arrivals; nothing shared; about 990 prompt and 205 answer tokens on average."""
    for number, at in enumerate(_arrivals(random, rate, duration_s)):
        yield _plain(random, number, at)


def bursts(random: Random, rate: float, duration_s: float) -> Iterator[TracedRequest]:
    """The same requests, sixteen at a time."""
    number = 0
    for at in _arrivals(random, rate / _BURST, duration_s):
        for _ in range(_BURST):
            number += 1
            yield _plain(random, number, at)


def prefixed(random: Random, rate: float, duration_s: float) -> Iterator[TracedRequest]:
    """640 shared prefixes of 4,000 tokens, used alike, and about 550 own tokens.

    Every copy of a prefix in a second cache costs a miss elsewhere.
    """
    return _prefixed(random, rate, duration_s, [1.0] * _PREFIXES)


def few_prefixed(random: Random, rate: float, duration_s: float) -> Iterator[TracedRequest]:
    """256 shared prefixes of 4,000 tokens, used as Zipf has it, and about 550 own tokens."""
    return _prefixed(random, rate, duration_s, _zipf(_FEW_PREFIXES))


def hot_prefixed(random: Random, rate: float, duration_s: float) -> Iterator[TracedRequest]:
    """64 shared prefixes of 768 tokens as Zipf has it: a fifth of all requests has the first."""
    return _prefixed(
        random,
        rate,
        duration_s,
        _zipf(_HOT_PREFIXES),
        prefix_tokens=_HOT_TOKENS,
        own=(60, 0.6, 400),
        output=(20, 0.6, 100),
    )


def _zipf(count: int) -> list[float]:
    return [1 / (n + 1) for n in range(count)]


def _prefixed(
    random: Random,
    rate: float,
    duration_s: float,
    weights: list[float],
    *,
    prefix_tokens: int = _PREFIX_TOKENS,
    own: tuple[float, float, int] = (400, 0.8, 4_000),
    output: tuple[float, float, int] = (150, 0.8, 1_024),
) -> Iterator[TracedRequest]:
    """``own`` and ``output`` are what `_lengths` draws from."""
    bounds = list(accumulate(weights))
    for number, at in enumerate(_arrivals(random, rate, duration_s)):
        prefix = random.choices(range(len(weights)), cum_weights=bounds)[0]
        yield traced(
            number=number,
            at=at,
            prompt_tokens=prefix_tokens + _lengths(random, *own),
            output_tokens=_lengths(random, *output),
            prefix=str(prefix),
            prefix_tokens=prefix_tokens,
        )


def sessions(random: Random, rate: float, duration_s: float) -> Iterator[TracedRequest]:
    """Conversations of eight turns; each prompt holds everything that was said before."""
    number = 0
    # Begun before the window, so that it does not start with first turns alone.
    lead_s = _TURNS * _THINKING_S
    for begun in _arrivals(random, rate / _TURNS, duration_s + lead_s):
        at = begun - lead_s
        context = 0
        name = f"session-{number}"
        for _ in range(_TURNS):
            asked = _lengths(random, 300, 0.8, 4_000)
            answered = _lengths(random, 150, 0.6, 1_024)
            if 0 <= at < duration_s:
                number += 1
                yield _turn(name, at, context, asked, answered)
            context += asked + answered
            at += random.expovariate(1 / _THINKING_S) + 0.02 * answered


def _turn(name: str, at: float, context: int, asked: int, answered: int) -> TracedRequest:
    prompt = context + asked
    # What a turn adds is a prefix of the next one: all blocks of one session are of one kind.
    blocks = tuple(hash((name, index)) for index in range(prompt // BLOCK_TOKENS))
    return TracedRequest(
        at=at,
        prompt_tokens=prompt,
        output_tokens=answered,
        prefix=name,
        prefix_tokens=prompt,
        blocks=blocks,
    )


def _plain(random: Random, number: int, at: float) -> TracedRequest:
    return traced(
        number=number,
        at=at,
        prompt_tokens=_lengths(random, 600, 1.0, 8_192),
        output_tokens=_lengths(random, 150, 0.8, 1_024),
    )


_FAST = Hardware()
_MIXED = (_FAST,) * 4 + (_FAST.slower(2.0),) * 4
_SMALL = Hardware(
    step_s=0.04,
    per_sequence_s=0.0008,
    per_prompt_token_s=0.00025,
    max_sequences=4,
    kv_tokens=32_768,
)
"""A server of few seats, half as fast as those of `make bench-live`."""

WORKLOADS: Final[dict[str, Workload]] = {
    each.name: each
    for each in (
        Workload(name="plain", what="nothing shared, moderate load", rate=58.0, draw=plain),
        Workload(name="plain-high", what="nothing shared, high load", rate=68.0, draw=plain),
        Workload(name="prefix", what="shared prefixes fill all caches", rate=64.0, draw=prefixed),
        Workload(name="prefix-high", what="the same, high load", rate=71.0, draw=prefixed),
        Workload(name="few-prefixes", what="256 popular prefixes", rate=90.0, draw=few_prefixed),
        Workload(
            name="few-prefixes-high", what="the same, high load", rate=105.0, draw=few_prefixed
        ),
        Workload(
            name="few-seats",
            what="popular prefixes, four requests at a time for each pod",
            rate=17.0,
            draw=hot_prefixed,
            pods=(_SMALL,) * 8,
        ),
        Workload(name="session", what="conversations of 8 turns", rate=22.0, draw=sessions),
        Workload(
            name="stale",
            what="plain, metrics read once a second",
            rate=63.0,
            draw=plain,
            scrape_s=1.0,
        ),
        Workload(name="burst", what="plain, 16 requests at a time", rate=63.0, draw=bursts),
        Workload(
            name="mixed",
            what="plain, half of the pods twice as slow",
            rate=44.0,
            draw=plain,
            pods=_MIXED,
        ),
    )
}
