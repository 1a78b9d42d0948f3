"""A model server's engine, modelled: continuous batching, chunked prefill, prefix cache.

One step computes one token of each running sequence and as many prompt tokens as fit. Its time is
linear in both (Vidur, MLSys 2024, finds the same shape). Steps in which nothing changes are taken
together, so that a minute of eight pods takes a second to simulate.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil
from typing import TYPE_CHECKING, Final

from inference_picker.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_picker.simulation.traces import TracedRequest

BLOCK_TOKENS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Constants of one pod; the defaults are near to an 8B model on an H100."""

    step_s: float = 0.006
    per_sequence_s: float = 0.00012
    per_prompt_token_s: float = 0.00006
    max_batched_tokens: int = 8192
    """vLLM's default of ``max_num_batched_tokens`` for its API server on such a GPU."""
    max_sequences: int = 256
    kv_tokens: int = 400_000

    def slower(self, factor: float) -> Hardware:
        """The same pod with all times longer."""
        return Hardware(
            step_s=self.step_s * factor,
            per_sequence_s=self.per_sequence_s * factor,
            per_prompt_token_s=self.per_prompt_token_s * factor,
            max_batched_tokens=self.max_batched_tokens,
            max_sequences=self.max_sequences,
            kv_tokens=self.kv_tokens,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One request at a pod."""

    request: TracedRequest
    arrived_at: float
    cached_tokens: int = 0
    left: int = 0
    """Prompt tokens still to compute."""
    first_token_at: float | None = None
    ended_at: float | None = None


@dataclass(slots=True, kw_only=True)
class StepEnd:
    """What a step brought."""

    first_tokens: list[Run] = field(default_factory=list)
    ended: list[Run] = field(default_factory=list)


class Engine:
    """One pod. The caller moves time: `next_end` says when to call `finish_step`."""

    def __init__(self, hardware: Hardware) -> None:
        """Start idle and cold."""
        self.hardware = hardware
        self.next_end: float | None = None
        self.preempted = 0
        self._waiting: deque[Run] = deque()
        self._prefilling: deque[Run] = deque()
        self._decoding = 0
        self._steps = 0
        self._ends: list[tuple[int, int, Run]] = []
        self._kv = 0
        self._generated = 0
        self._cache: OrderedDict[int, None] = OrderedDict()
        self._work: list[tuple[Run, int]] = []
        self._started_at = 0.0
        self._step_s = 0.0
        self._planned = 0
        self._number = 0

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._waiting) + len(self._prefilling) + self._decoding

    def add(self, run: Run, at: float) -> None:
        """A request arrives."""
        self._waiting.append(run)
        if self.next_end is None:
            self._plan(at)
        elif self._planned > 1:
            # It joins at the end of the step that is running.
            done = min(self._planned, int((at - self._started_at) / self._step_s) + 1)
            self._planned = done
            self.next_end = self._started_at + done * self._step_s

    def finish_step(self, at: float) -> StepEnd:
        """End what was planned up to now and plan the next."""
        outcome = StepEnd()
        self._steps += self._planned
        self._kv += self._decoding * self._planned
        self._generated += self._decoding * self._planned
        while self._ends and self._ends[0][0] <= self._steps:
            self._end(heappop(self._ends)[2], at, outcome)
        for run, tokens in self._work:
            run.left -= tokens
            if run.left:
                continue
            self._prefilling.remove(run)
            run.first_token_at = at
            outcome.first_tokens.append(run)
            self._remember(run.request.blocks)
            self._decoding += 1
            self._kv += 1
            self._generated += 1
            if run.request.output_tokens <= 1:
                self._end(run, at, outcome)
                continue
            self._number += 1
            heappush(self._ends, (self._steps + run.request.output_tokens - 1, self._number, run))
        self._plan(at)
        return outcome

    def readings(self) -> Readings:
        """What its metrics page says."""
        return Readings(
            running=float(len(self._prefilling) + self._decoding),
            waiting=float(len(self._waiting)),
            kv_usage=min(1.0, self._kv / self.hardware.kv_tokens),
            kv_blocks=self.hardware.kv_tokens // 16,
            block_size=16,
        )

    def _plan(self, at: float) -> None:
        hardware = self.hardware
        budget = hardware.max_batched_tokens - self._decoding
        self._work = []
        while self._waiting and self._can_admit(self._waiting[0]):
            run = self._waiting.popleft()
            run.cached_tokens = self._cached(run.request)
            # The last prompt token is computed in any case: the first answer token comes of it.
            run.left = max(1, run.request.prompt_tokens - run.cached_tokens)
            # Blocks of a cached prefix are shared: they are held once, whoever uses them.
            self._kv += run.request.prompt_tokens - run.cached_tokens
            self._prefilling.append(run)
        for run in self._prefilling:
            if budget <= 0:
                break
            tokens = min(run.left, budget)
            self._work.append((run, tokens))
            budget -= tokens
        if not self._work and not self._decoding:
            self.next_end = None
            return
        prompt_tokens = sum(tokens for _, tokens in self._work)
        self._step_s = (
            hardware.step_s
            + hardware.per_sequence_s * self._decoding
            + hardware.per_prompt_token_s * prompt_tokens
        )
        self._started_at = at
        self._planned = 1 if self._work else max(1, self._ends[0][0] - self._steps)
        self.next_end = at + self._planned * self._step_s

    def _can_admit(self, run: Run) -> bool:
        running = len(self._prefilling) + self._decoding
        if running >= self.hardware.max_sequences:
            return False
        # Half of the answer is kept free: a stand-in for preemption, which costs as much as it.
        need = (
            run.request.prompt_tokens - self._cached(run.request) + run.request.output_tokens // 2
        )
        return not running or self._kv + need <= self.hardware.kv_tokens

    def _cached(self, request: TracedRequest) -> int:
        matched = 0
        for block in request.blocks:
            if block not in self._cache:
                break
            self._cache.move_to_end(block)
            matched += 1
        return min(matched * BLOCK_TOKENS, request.prompt_tokens)

    def _remember(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):
            self._cache[block] = None
            self._cache.move_to_end(block)
        # Answers in progress take their room from the cache; prompts in progress are in it.
        room = self.hardware.kv_tokens - self._generated
        while len(self._cache) > ceil(room / BLOCK_TOKENS):
            self._cache.popitem(last=False)

    def _end(self, run: Run, at: float, outcome: StepEnd) -> None:
        run.ended_at = at
        self._decoding -= 1
        self._kv -= run.request.prompt_tokens - run.cached_tokens + run.request.output_tokens
        self._generated -= run.request.output_tokens
        outcome.ended.append(run)
