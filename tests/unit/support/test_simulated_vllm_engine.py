from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.simulated_vllm.blocks import prefix_hashes
from support.simulated_vllm.engine import Emitted, Engine, Sequence, Timing


def make_sequence(
    prompt: int = 32, output: int = 4, *, text: bytes | None = None, **rest: object
) -> Sequence:
    prompt_bytes = text if text is not None else b""
    return Sequence(
        prompt_tokens=prompt if text is None else len(prompt_bytes),
        output_tokens=output,
        arrived=0.0,
        prompt_hashes=prefix_hashes(
            prompt_bytes, token_bytes=1, block_size=16, salt=str(rest.get("adapter") or "")
        ),
        **rest,  # type: ignore[arg-type]
    )


@dataclass
class Clock:
    """Runs an engine on its own time and keeps what each step emitted."""

    engine: Engine
    now: float = 0.0
    steps: list[list[Emitted]] = field(default_factory=list)

    def step(self) -> bool:
        plan = self.engine.plan(self.now)
        if plan is None:
            return False
        self.now += plan.duration_s
        self.steps.append(self.engine.complete(plan, self.now))
        return True

    def run(self, limit: int = 10_000) -> None:
        for _ in range(limit):
            if not self.step():
                return
        pytest.fail(f"the engine is still busy after {limit} steps")


def test_a_lone_request_pays_prefill_once_and_one_step_for_each_token() -> None:
    clock = Clock(Engine(Timing()))
    sequence = make_sequence(prompt=80, output=3)
    clock.engine.add(sequence)
    clock.run()

    # By hand: 0.020 + 80/8000 = 0.030 for the first, then 0.020 + 0.0004 for each other token.
    assert sequence.first_token_at == pytest.approx(0.030)
    assert sequence.last_token_at == pytest.approx(0.030 + 2 * 0.0204)
    gaps = [item.gap_s for step in clock.steps for item in step]
    assert gaps[0] is None
    assert gaps[1:] == [pytest.approx(0.0204), pytest.approx(0.0204)]


def test_speed_divides_every_duration() -> None:
    clock = Clock(Engine(Timing(speed=10)))
    clock.engine.add(make_sequence(prompt=80, output=1))
    clock.run()
    assert clock.now == pytest.approx(0.0030)


def test_requests_above_max_num_seqs_wait() -> None:
    clock = Clock(Engine(Timing(max_num_seqs=2)))
    sequences = [make_sequence(output=3) for _ in range(5)]
    for sequence in sequences:
        clock.engine.add(sequence)
    clock.step()

    assert len(clock.engine.running) == 2
    assert clock.engine.waiting == 3
    clock.run()
    assert [s.first_token_at for s in sequences] == sorted(
        s.first_token_at or 0.0 for s in sequences
    )


def test_a_long_prompt_is_computed_in_chunks() -> None:
    clock = Clock(Engine(Timing(max_num_batched_tokens=2048)))
    clock.engine.add(make_sequence(prompt=5000, output=1))
    clock.run()
    # 2048 + 2048 + 904 tokens: the third step emits.
    assert [len(step) for step in clock.steps] == [0, 0, 1]


def test_a_repeated_prompt_is_computed_only_beyond_its_cached_blocks() -> None:
    clock = Clock(Engine(Timing()))
    text = bytes(range(100))
    for _ in range(2):
        clock.engine.add(make_sequence(text=text, output=1))
        clock.run()
    # Six full blocks of 16 of the 100 tokens were cached; 4 remain: 0.020 + 4/8000.
    assert clock.now == pytest.approx(0.020 + 100 / 8000 + 0.020 + 4 / 8000)
    assert clock.engine.totals.prefix_queries == 200
    assert clock.engine.totals.prefix_hits == 96


def test_the_last_token_is_computed_even_if_all_blocks_are_cached() -> None:
    clock = Clock(Engine(Timing()))
    for _ in range(2):
        clock.engine.add(make_sequence(text=b"x" * 32, output=1))
        clock.run()
    assert clock.engine.totals.prefix_hits == 16


def test_adapters_do_not_share_a_prefix() -> None:
    clock = Clock(Engine(Timing()))
    for adapter in ("v1", "v2"):
        clock.engine.add(make_sequence(text=b"x" * 64, output=1, adapter=adapter))
        clock.run()
    assert clock.engine.totals.prefix_hits == 0


def test_the_latest_request_is_preempted_when_blocks_run_out_and_still_ends() -> None:
    clock = Clock(Engine(Timing(gpu_blocks=5, block_size=16)))
    first, second = make_sequence(prompt=30, output=40), make_sequence(prompt=30, output=40)
    clock.engine.add(first)
    clock.engine.add(second)
    clock.run()

    assert clock.engine.totals.preemptions == second.preemptions == 1
    assert first.preemptions == 0
    assert (first.generated, second.generated) == (40, 40)
    assert clock.engine.pool.usage == 0


def test_usage_is_the_share_of_blocks_in_use() -> None:
    clock = Clock(Engine(Timing(gpu_blocks=8)))
    clock.engine.add(make_sequence(prompt=32, output=9))
    clock.step()
    assert clock.engine.pool.usage == 2 / 8


@pytest.mark.parametrize("started", [False, True], ids=["waiting", "running"])
def test_an_aborted_request_frees_its_place_at_once(started: bool) -> None:
    clock = Clock(Engine(Timing()))
    sequence = make_sequence(output=100)
    clock.engine.add(sequence)
    if started:
        clock.step()
    clock.engine.abort(sequence)
    clock.engine.abort(sequence)

    assert clock.engine.pool.usage == 0
    assert clock.engine.plan(clock.now) is None


def test_a_request_aborted_within_a_step_emits_nothing() -> None:
    engine = Engine(Timing())
    gone, kept = make_sequence(), make_sequence()
    engine.add(gone)
    engine.add(kept)
    plan = engine.plan(0.0)
    assert plan is not None
    engine.abort(gone)
    assert [item.sequence for item in engine.complete(plan, 1.0)] == [kept]


def test_a_slow_server_takes_longer_for_each_step() -> None:
    clock = Clock(Engine(Timing()))
    clock.engine.slow_factor = 2.0
    clock.engine.add(make_sequence(prompt=80, output=1))
    clock.run()
    assert clock.now == pytest.approx(0.060)


def test_a_slow_request_decodes_in_every_third_step_and_slows_no_other() -> None:
    clock = Clock(Engine(Timing()))
    slow, fast = make_sequence(output=11, slow_factor=3.0), make_sequence(output=11)
    clock.engine.add(slow)
    clock.engine.add(fast)
    clock.run()

    ended = {
        item.sequence.slow_factor: number
        for number, step in enumerate(clock.steps)
        for item in step
        if item.sequence.ended
    }
    assert ended[1.0] == 10
    # Ten tokens in every third step; 1/3 is not exact in binary, so one step more is possible.
    assert ended[3.0] in {30, 31}


def test_a_third_adapter_waits_without_holding_up_others() -> None:
    clock = Clock(Engine(Timing(max_loras=2)))
    names = ["v1", "v2", "v3", None, "v1"]
    sequences = [make_sequence(output=5, adapter=name) for name in names]
    for sequence in sequences:
        clock.engine.add(sequence)
    clock.step()

    assert [s.adapter for s in clock.engine.running] == ["v1", "v2", None, "v1"]
    assert clock.engine.waiting_for_adapter() == 1
    assert clock.engine.active_adapters() == ["v1", "v2", "v3"]
    clock.run()
    assert all(s.ended for s in sequences)


def test_a_request_that_can_never_fit_is_refused_with_the_remedy() -> None:
    engine = Engine(Timing(gpu_blocks=4, block_size=16))
    with pytest.raises(ValueError, match=r"needs 5 KV blocks, the cache has 4.*--gpu-blocks"):
        engine.add(make_sequence(prompt=60, output=5))


requests = st.builds(
    make_sequence,
    text=st.binary(min_size=1, max_size=90).map(lambda text: bytes(len(text) % 3 for _ in text)),
    output=st.integers(1, 40),
    adapter=st.sampled_from([None, "v1", "v2", "v3"]),
    slow_factor=st.sampled_from([1.0, 1.5, 4.0]),
)


@given(
    sequences=st.lists(requests, max_size=12),
    gpu_blocks=st.integers(9, 40),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(1, 64),
)
def test_every_request_ends_with_its_tokens_and_every_block_comes_back(
    sequences: list[Sequence], gpu_blocks: int, max_num_seqs: int, budget: int
) -> None:
    timing = Timing(gpu_blocks=gpu_blocks, max_num_seqs=max_num_seqs, max_num_batched_tokens=budget)
    clock = Clock(Engine(timing))
    for sequence in sequences:
        clock.engine.add(sequence)
    for _ in range(100_000):
        if not clock.step():
            break
        engine = clock.engine
        assert len(engine.running) <= max_num_seqs
        assert 0 <= engine.pool.usage <= 1
        held = [block for s in sequences for block in s.blocks]
        assert engine.pool.free == gpu_blocks - len(set(held))
        assert sum(engine.pool._references) == len(held)
        assert len({s.adapter for s in engine.running if s.adapter}) <= timing.max_loras

    assert all(s.ended and s.generated == s.output_tokens for s in sequences)
    assert sum(len(step) for step in clock.steps) == sum(s.output_tokens for s in sequences)
    assert clock.engine.pool.usage == 0
