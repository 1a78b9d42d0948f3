"""How near the picks are to those of perfect knowledge, on shared prefixes that fill all caches.

Beside the default policy, which knows what passed through it and pages that are 50 ms old:

- *partition*: each prefix has a server of its own, which it always goes to;
- *oracle*: reads the servers' own state at each pick (what each has cached, how far its step is,
  what waits there) and takes the one that gives the first token first, with each token that has to
  be computed anew counted so many times more, because it drives another prefix from a cache.

All start with each prefix in one cache, of which the policy's index knows nothing.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bench.figures import interval
from inference_picker.messages import Sample
from inference_picker.simulation.engine import BLOCK_TOKENS
from inference_picker.simulation.policies import DEFAULT, POLICIES
from inference_picker.simulation.replay import Setting, _Replay
from inference_picker.simulation.workloads import WORKLOADS

if TYPE_CHECKING:
    from inference_picker.pool import Endpoint
    from inference_picker.simulation.engine import Engine
    from inference_picker.simulation.traces import TracedRequest

WORKLOAD = "prefix"
MISSES = (1.0, 2.0, 4.0)
"""How many times more the oracle counts a token that has to be computed anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How servers are picked; ``misses`` is the oracle's."""

    name: str
    misses: float = 0.0


WAYS = (
    Way(name=DEFAULT),
    Way(name="partition"),
    *(Way(name="oracle", misses=misses) for misses in MISSES),
)


class Knowing(_Replay):
    """A run whose picks may read the modelled servers themselves."""

    def __init__(self, way: Way, setting: Setting) -> None:
        """The default policy's scheduler keeps the books for every way."""
        super().__init__(POLICIES[DEFAULT](), setting, None)
        self._way = way

    def warm(self, trace: list[TracedRequest]) -> None:
        """Put each prefix of the trace into one cache."""
        seen: set[str] = set()
        for request in trace:
            if request.prefix not in seen:
                seen.add(request.prefix)
                blocks = request.blocks[: request.prefix_tokens // BLOCK_TOKENS]
                self._engines[self._home(request)]._remember(blocks)

    def _home(self, request: TracedRequest) -> int:
        return int(request.prefix) % len(self._engines)

    def _divide(
        self, request: TracedRequest, at: float
    ) -> tuple[tuple[Endpoint, ...] | None, Sample]:
        if self._way.name == DEFAULT:
            return None, Sample.BACKGROUND
        if self._way.name == "partition":
            return (self._endpoints[self._home(request)],), Sample.BACKGROUND
        costs = [self._cost(engine, request, at) for engine in self._engines]
        return (self._endpoints[costs.index(min(costs))],), Sample.BACKGROUND

    def _cost(self, engine: Engine, request: TracedRequest, at: float) -> float:
        """Seconds to the first token, and what a miss costs others."""
        hardware = engine.hardware
        own = _uncached(engine, request)
        before = sum(run.left for run in engine._prefilling)
        before -= sum(tokens for _, tokens in engine._work)
        before += sum(_uncached(engine, run.request) for run in engine._waiting)
        step = 0.0
        if engine.next_end is not None:
            step = engine._step_s / 2 if engine._planned > 1 else max(0.0, engine.next_end - at)
        tokens = before + own * (1 + self._way.misses)
        decoding = hardware.per_sequence_s * engine._decoding
        return step + hardware.step_s + decoding + tokens * hardware.per_prompt_token_s


def _uncached(engine: Engine, request: TracedRequest) -> int:
    """Prompt tokens to compute; looking must not keep anything in the cache."""
    matched = 0
    for block in request.blocks:
        if block not in engine._cache:
            break
        matched += BLOCK_TOKENS
    return max(1, request.prompt_tokens - matched)


def mean_of(seed: int, *, way: Way, rate: float, duration_s: float) -> tuple[float, float]:
    """Mean TTFT in ms of the second half of a run, and the share of prompt tokens found cached."""
    workload = WORKLOADS[WORKLOAD]
    trace = workload.requests(seed=seed, duration_s=duration_s, rate=rate)
    run = Knowing(way, Setting(pods=workload.pods, watch_share=0.05, seed=seed))
    run.warm(trace)
    result = run.run(trace, duration_s / 2)
    return 1000 * float(result.ttft.mean()), result.cached_share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--rates", default="58,64")
    arguments = parser.parse_args()
    print("rate  way          misses  mean TTFT, ms  cached")
    with ProcessPoolExecutor(max_workers=2) as pool:
        for rate in map(float, arguments.rates.split(",")):
            for way in WAYS:
                work = partial(mean_of, way=way, rate=rate, duration_s=arguments.seconds)
                found = list(pool.map(work, range(arguments.seeds)))
                mean, half = interval([each for each, _ in found])
                cached = sum(each for _, each in found) / len(found)
                misses = f"{way.misses:g}" if way.misses else ""
                print(
                    f"{rate:>4g}  {way.name:<11}  {misses:>6}  {mean:>7.0f} ± {half:<3.0f}  "
                    f"{cached:>6.3f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
