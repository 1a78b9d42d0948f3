"""Runs a trace through a scheduler and modelled pods: a discrete-event simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from inference_common.shares import PoolShares
from inference_picker.messages import Sample
from inference_picker.pool import Endpoint, make_snapshot
from inference_picker.prompts import BLOCK_BYTES, Prompt
from inference_picker.scheduler import Question, Scheduler
from inference_picker.simulation.engine import BLOCK_TOKENS, Engine, Hardware, Run
from inference_picker.versions import Divider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_picker.board import Flight
    from inference_picker.prefixes import PrefixIndex
    from inference_picker.ranking import Floats, Profile
    from inference_picker.simulation.traces import TracedRequest

_ARRIVAL, _STEP, _SCRAPE = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A second version on the last pods of the pool, identical to the stable one."""

    percent: int
    """Its share."""
    pods: int
    is_sticky: bool = False
    """Whether a request's prefix tells its user."""
    alone: bool = False
    """Whether the requests of neither arm are left out. That changes nothing for the arms while
    they have pods of their own, and saves most of the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a run is made."""

    pods: tuple[Hardware, ...]
    scrape_s: float = 0.05
    """Seconds between two reads of a pod's metrics; each pod has its own phase."""
    watch_share: float = 1.0
    """Share of requests whose first token and usage the picker sees."""
    misset: float = 1.0
    """Factor on every constant that the scheduler starts from: tokens per byte, prefill rate,
    length of answers in tokens and in seconds."""
    broken: int | None = None
    """Pod that answers 500 at once from `broken_from_s` on."""
    broken_from_s: float = 0.0
    canary: Canary | None = None
    seed: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Result:
    """What a run gave. Times in seconds; requests of the warm-up are left out."""

    ttft: Floats
    tpot: Floats
    cached_share: float
    by_pod: list[int] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    """Times at which a broken pod answered."""
    arms: dict[Sample, Floats] = field(default_factory=dict)
    """TTFT by arm, where there is a canary."""

    def meets(self, *, ttft_s: float = 1.0, tpot_s: float = 0.05) -> float:
        """Share of the requests within both limits."""
        return float(np.mean((self.ttft < ttft_s) & (self.tpot < tpot_s)))


def replay(
    trace: Sequence[TracedRequest],
    profile: Profile,
    setting: Setting,
    *,
    warmup_s: float = 0.0,
    index: PrefixIndex | None = None,
) -> Result:
    """Run the whole trace; the pods drain at the end. ``index`` is the scheduler's, empty."""
    return _Replay(profile, setting, index).run(trace, warmup_s)


def _size(request: TracedRequest) -> int:
    return request.prompt_tokens * BLOCK_BYTES // BLOCK_TOKENS


class _Replay:
    def __init__(self, profile: Profile, setting: Setting, index: PrefixIndex | None) -> None:
        self._setting = setting
        self._engines = [Engine(each) for each in setting.pods]
        self._random = Random(setting.seed)  # noqa: S311
        self._scheduler = Scheduler(
            profile,
            index=index,
            random=Random(setting.seed + 1),  # noqa: S311
        )
        estimates = self._scheduler.estimates
        estimates.bytes_per_token /= setting.misset
        estimates.prefill_rate *= setting.misset
        estimates.output_tokens *= setting.misset
        estimates.answer_s *= setting.misset
        self._addresses = [f"10.0.0.{each}:8000" for each in range(len(self._engines))]
        canary = setting.canary
        first = len(self._engines) - (0 if canary is None else canary.pods)
        self._endpoints = [
            Endpoint(address=each, pod=f"pod-{n}", version="stable" if n < first else "canary")
            for n, each in enumerate(self._addresses)
        ]
        self._snapshot = make_snapshot(self._endpoints)
        self._divider = Divider(self._random.getrandbits(64))
        self._samples: dict[Run, Sample] = {}
        self._events: list[tuple[float, int, int, int]] = []
        self._flights: dict[Run, tuple[Flight, bool]] = {}
        self._runs: list[Run] = []
        self._by_pod = [0] * len(self._engines)
        self._failed: list[float] = []
        self._versions = [0] * len(self._engines)

    def run(self, trace: Sequence[TracedRequest], warmup_s: float) -> Result:
        for number, request in enumerate(trace):
            heappush(self._events, (request.at, _ARRIVAL, number, 0))
        for pod in range(len(self._engines)):
            phase = self._random.random() * self._setting.scrape_s
            heappush(self._events, (phase, _SCRAPE, pod, 0))
        left = len(trace)
        while left or self._flights:
            at, kind, which, version = heappop(self._events)
            if kind == _ARRIVAL:
                left -= 1
                self._arrive(trace[which], at)
            elif kind == _SCRAPE:
                self._scrape(which, at)
            elif version == self._versions[which]:
                self._step(which, at)
        return self._result(warmup_s)

    def _arrive(self, request: TracedRequest, at: float) -> None:
        setting, scheduler = self._setting, self._scheduler
        prompt = Prompt(size=_size(request), blocks=request.blocks)
        among, sample = self._divide(request, at)
        if sample is Sample.BACKGROUND and setting.canary is not None and setting.canary.alone:
            return
        choice = scheduler.choose(self._snapshot, Question(prompt=prompt, among=among), at=at)
        flight = scheduler.take_off(choice, at=at)
        pod = choice.ranking.rows[0]
        self._by_pod[pod] += 1
        if pod == setting.broken and at >= setting.broken_from_s:
            self._failed.append(at)
            flight.land()
            scheduler.failed(self._addresses[pod], at=at, reason="5xx")
            return
        run = Run(request=request, arrived_at=at)
        self._runs.append(run)
        if setting.canary is not None:
            self._samples[run] = sample
        self._flights[run] = flight, self._random.random() < setting.watch_share
        self._engines[pod].add(run, at)
        self._plan(pod)

    def _divide(
        self, request: TracedRequest, at: float
    ) -> tuple[tuple[Endpoint, ...] | None, Sample]:
        canary = self._setting.canary
        if canary is None:
            return None, Sample.BACKGROUND
        division = self._divider.divide(
            PoolShares(
                # Each run has control pods and users of its own drawing.
                rollout=f"simulated-{self._setting.seed}",
                uid="simulated",
                counter=1,
                stable="stable",
                weights={"stable": 100 - canary.percent, "canary": canary.percent},
            ),
            self._endpoints,
            key=request.prefix if canary.is_sticky else None,
            is_full=lambda endpoint: self._scheduler.is_full(endpoint.address, at=at),
        )
        return division.endpoints, division.sample

    def _scrape(self, pod: int, at: float) -> None:
        self._scheduler.board.note_readings(
            self._addresses[pod], self._engines[pod].readings(), at=at
        )
        heappush(self._events, (at + self._setting.scrape_s, _SCRAPE, pod, 0))

    def _step(self, pod: int, at: float) -> None:
        outcome = self._engines[pod].finish_step(at)
        for run in outcome.first_tokens:
            flight, watched = self._flights[run]
            if watched:
                flight.first_byte(at)
        for run in outcome.ended:
            flight, watched = self._flights.pop(run)
            flight.land()
            self._scheduler.succeeded(self._addresses[pod])
            if watched:
                self._scheduler.estimates.saw_usage(
                    prompt_bytes=_size(run.request),
                    prompt_tokens=run.request.prompt_tokens,
                    output_tokens=run.request.output_tokens,
                )
                if run.first_token_at is not None:
                    self._scheduler.estimates.saw_answer(at - run.first_token_at)
        self._plan(pod)

    def _plan(self, pod: int) -> None:
        end = self._engines[pod].next_end
        self._versions[pod] += 1
        if end is not None:
            heappush(self._events, (end, _STEP, pod, self._versions[pod]))

    def _result(self, warmup_s: float) -> Result:
        counted = [each for each in self._runs if each.arrived_at >= warmup_s]
        ttft, tpot, cached, prompt = [], [], 0, 0
        arms: dict[Sample, list[float]] = {}
        for run in counted:
            assert run.first_token_at is not None  # noqa: S101 - every run has ended
            assert run.ended_at is not None  # noqa: S101
            ttft.append(run.first_token_at - run.arrived_at)
            if run in self._samples:
                arms.setdefault(self._samples[run], []).append(ttft[-1])
            tokens = max(1, run.request.output_tokens - 1)
            tpot.append((run.ended_at - run.first_token_at) / tokens)
            cached += run.cached_tokens
            prompt += run.request.prompt_tokens
        return Result(
            ttft=np.array(ttft),
            tpot=np.array(tpot),
            cached_share=cached / max(1, prompt),
            by_pod=self._by_pod,
            failed=self._failed,
            arms={sample: np.array(found) for sample, found in arms.items()},
        )
