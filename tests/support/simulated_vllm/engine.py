"""Continuous batching as vLLM's V1 scheduler does it, on an injected clock.

`plan(now)` decides one step and says how long it takes; `complete(plan, now)` applies it and says
which sequences got a token. Between the two the caller lets the time pass. Nothing here reads a
clock, sleeps or does I/O.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from support.simulated_vllm.blocks import BlockPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What a step costs and how much fits into it. Seconds and tokens."""

    decode_base_s: float = 0.020
    """A step with one sequence: reading the weights once."""
    decode_per_sequence_s: float = 0.0004
    """What each further sequence in the batch adds."""
    prefill_tokens_per_s: float = 8000.0
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    gpu_blocks: int = 2048
    max_loras: int = 2
    """Different adapters in one batch; requests for one more wait ("deferred")."""
    speed: float = 1.0
    """All durations are divided by this."""

    def step_s(self, *, decodes: int, prefill_tokens: float, slow_factor: float) -> float:
        """Duration of a step, e.g. 16 decodes: 0.020 + 16 * 0.0004 = 0.0264 s."""
        return (
            slow_factor
            * (
                self.decode_base_s
                + self.decode_per_sequence_s * decodes
                + prefill_tokens / self.prefill_tokens_per_s
            )
            / self.speed
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One request in the engine. The fields below the blank line belong to the engine."""

    prompt_tokens: int
    output_tokens: int
    """Tokens after which it ends, at least 1."""
    arrived: float
    prompt_hashes: list[int] = field(default_factory=list)
    adapter: str | None = None
    slow_factor: float = 1.0

    generated: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    credit: float = 0.0
    scheduled_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0
    running: bool = False
    ended: bool = False

    @property
    def length(self) -> int:
        """Tokens whose KV content the next token needs."""
        return self.prompt_tokens + self.generated


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`tokens` of a sequence to compute in this step."""

    sequence: Sequence
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One step: what it computes and how long it takes."""

    work: tuple[Work, ...]
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """A sequence that got its next token; `gap_s` since its previous one, None for the first."""

    sequence: Sequence
    gap_s: float | None


@dataclass(slots=True, kw_only=True)
class Totals:
    """Counters since the start."""

    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0


class Engine:
    """Running and waiting sequences over one block pool."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.pool = BlockPool(timing.gpu_blocks)
        self.slow_factor = 1.0
        self.totals = Totals()
        self.running: list[Sequence] = []
        self._waiting: deque[Sequence] = deque()

    @property
    def waiting(self) -> int:
        """Sequences that are not in the batch."""
        return len(self._waiting)

    def waiting_for_adapter(self) -> int:
        """Waiting sequences whose adapter finds no place among `max_loras`."""
        active = self._adapters()
        return sum(1 for sequence in self._waiting if not self._adapter_fits(sequence, active))

    def active_adapters(self) -> list[str]:
        """Adapters of running and waiting requests, in order of appearance."""
        sequences = (*self.running, *self._waiting)
        return list(dict.fromkeys(s.adapter for s in sequences if s.adapter is not None))

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises ValueError if even an empty cache could not hold it, since it would wait for ever.
        """
        needed = self._blocks_for(sequence.prompt_tokens + sequence.output_tokens)
        if needed > self.pool.total:
            raise ValueError(
                f"a request of {sequence.prompt_tokens} + {sequence.output_tokens} tokens needs "
                f"{needed} KV blocks, the cache has {self.pool.total}; lower --max-model-len or "
                f"raise --gpu-blocks"
            )
        self._waiting.append(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Take a sequence out at once and free its blocks. Harmless if it has ended."""
        if sequence.ended:
            return
        if sequence.running:
            self.running.remove(sequence)
        else:
            self._waiting.remove(sequence)
        self._end(sequence)

    def plan(self, now: float) -> Plan | None:
        """The next step, or None if there is nothing to do."""
        if not self.running and not self._waiting:
            return None
        work: list[Work] = []
        budget, preempted = self._plan_running(work)
        if not preempted:
            self._plan_waiting(work, budget, now)
        decodes = sum(1 for item in work if item.sequence.computed + 1 == item.sequence.length)
        prefill = sum(
            item.tokens * item.sequence.slow_factor
            for item in work
            if item.sequence.computed + 1 != item.sequence.length
        )
        duration_s = self.timing.step_s(
            decodes=decodes, prefill_tokens=prefill, slow_factor=self.slow_factor
        )
        return Plan(work=tuple(work), duration_s=duration_s)

    def complete(self, plan: Plan, now: float) -> list[Emitted]:
        """Apply a step that ended at `now`; what was aborted meanwhile is left out."""
        emitted: list[Emitted] = []
        for item in plan.work:
            sequence = item.sequence
            if not sequence.running:
                continue
            sequence.computed += item.tokens
            self._remember_prompt(sequence)
            if sequence.computed < sequence.length:
                continue
            gap_s = None if sequence.last_token_at is None else now - sequence.last_token_at
            sequence.generated += 1
            sequence.last_token_at = now
            if sequence.first_token_at is None:
                sequence.first_token_at = now
            emitted.append(Emitted(sequence=sequence, gap_s=gap_s))
            if sequence.generated >= sequence.output_tokens:
                self.running.remove(sequence)
                self._end(sequence)
        return emitted

    def _plan_running(self, work: list[Work]) -> tuple[int, bool]:
        budget = self.timing.max_num_batched_tokens
        preempted = False
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            if not self._may_run(sequence):
                index += 1
                continue
            tokens = min(sequence.length - sequence.computed, budget)
            while not self._grow(sequence, sequence.computed + tokens):
                preempted = True
                victim = self.running.pop()
                self._preempt(victim)
                if victim is sequence:
                    return budget, preempted
            work.append(Work(sequence=sequence, tokens=tokens))
            budget -= tokens
            index += 1
        return budget, preempted

    def _plan_waiting(self, work: list[Work], budget: int, now: float) -> None:
        adapters = self._adapters()
        deferred: list[Sequence] = []
        while self._waiting and budget > 0 and len(self.running) < self.timing.max_num_seqs:
            sequence = self._waiting.popleft()
            if not self._adapter_fits(sequence, adapters):
                deferred.append(sequence)
                continue
            hits = self.pool.cached_prefix(self._usable_hashes(sequence))
            cached = len(hits) * self.timing.block_size
            tokens = min(sequence.length - cached, budget)
            self.pool.share(hits)
            sequence.blocks = list(hits)
            if not self._grow(sequence, cached + tokens):
                self.pool.release(hits)
                sequence.blocks = []
                self._waiting.appendleft(sequence)
                break
            sequence.computed = cached
            sequence.running = True
            if sequence.scheduled_at is None:
                sequence.scheduled_at = now
                sequence.cached_tokens = cached
                self.totals.prefix_queries += sequence.prompt_tokens
                self.totals.prefix_hits += cached
            if sequence.adapter is not None:
                adapters.add(sequence.adapter)
            self.running.append(sequence)
            work.append(Work(sequence=sequence, tokens=tokens))
            budget -= tokens
        self._waiting.extendleft(reversed(deferred))

    def _usable_hashes(self, sequence: Sequence) -> list[int]:
        # The last token is always computed: its output is what the first sample is drawn from.
        return sequence.prompt_hashes[: (sequence.length - 1) // self.timing.block_size]

    def _may_run(self, sequence: Sequence) -> bool:
        """Whether a slowed sequence decodes in this step: one in `slow_factor` steps."""
        if sequence.slow_factor <= 1 or sequence.computed + 1 != sequence.length:
            return True
        sequence.credit += 1 / sequence.slow_factor
        if sequence.credit < 1:
            return False
        sequence.credit -= 1
        return True

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.timing.block_size)

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        missing = self._blocks_for(tokens) - len(sequence.blocks)
        if missing <= 0:
            return True
        taken = self.pool.take(missing)
        if taken is None:
            return False
        sequence.blocks.extend(taken)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Free a sequence's blocks; it starts again from its prompt and the tokens it has."""
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0
        sequence.running = False
        sequence.preemptions += 1
        self.totals.preemptions += 1
        self._waiting.appendleft(sequence)

    def _remember_prompt(self, sequence: Sequence) -> None:
        if sequence.generated:
            return
        full = sequence.computed // self.timing.block_size
        for block, block_hash in zip(
            sequence.blocks[:full], sequence.prompt_hashes[:full], strict=False
        ):
            self.pool.remember(block, block_hash)

    def _end(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.running = False
        sequence.ended = True

    def _adapters(self) -> set[str]:
        return {s.adapter for s in self.running if s.adapter is not None}

    def _adapter_fits(self, sequence: Sequence, active: set[str]) -> bool:
        return (
            sequence.adapter is None
            or sequence.adapter in active
            or len(active) < self.timing.max_loras
        )
