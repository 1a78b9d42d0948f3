from __future__ import annotations

import asyncio
import itertools

import pytest

from support.simulated_vllm.driver import Driver
from support.simulated_vllm.engine import Emitted, Engine, Sequence, Timing


async def until_ended(driver: Driver, *sequences: Sequence) -> None:
    running = asyncio.create_task(driver.run())
    for sequence in sequences:
        await driver.submit(sequence, interval=None).more_than(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_times_are_the_models_own_on_a_machine_that_is_always_late() -> None:
    """Two decode steps of .5 ms on a machine whose clock has moved 5 s whenever it is read."""
    steps: list[list[Emitted]] = []
    late = itertools.count(100.0, 5.0)
    timing = Timing(decode_base_s=0.0005, decode_per_sequence_s=0.0, prefill_tokens_per_s=1e9)
    driver = Driver(Engine(timing), clock=lambda: next(late), on_step=steps.append)
    sequence = Sequence(prompt_tokens=8, output_tokens=3, arrived=driver.now())
    await until_ended(driver, sequence)
    assert sequence.first_token_at is not None
    assert sequence.first_token_at - sequence.arrived >= timing.decode_base_s
    gaps = [item.gap_s for step in steps for item in step]
    assert gaps == [None, pytest.approx(0.0005), pytest.approx(0.0005)]


async def test_a_request_that_ends_a_pause_waits_for_its_own_step_alone() -> None:
    """However late the loop is woken after the arrival."""
    clock = 0.0
    timing = Timing(decode_base_s=0.0005, decode_per_sequence_s=0.0, prefill_tokens_per_s=1e9)
    driver = Driver(Engine(timing), clock=lambda: clock, on_step=lambda _: None)
    running = asyncio.create_task(driver.run())
    await asyncio.sleep(0)
    clock = 7.0
    sequence = Sequence(prompt_tokens=8, output_tokens=1, arrived=driver.now())
    mailbox = driver.submit(sequence, interval=None)
    clock = 9.0
    await mailbox.more_than(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert sequence.arrived == 7.0
    assert sequence.first_token_at == pytest.approx(7.0005, abs=1e-5)


async def test_time_stands_at_the_end_of_a_step_until_the_step_has_ended() -> None:
    """A request that comes meanwhile has not arrived after the step that it waits for."""
    clock = 0.0
    timing = Timing(decode_base_s=0.0005, decode_per_sequence_s=0.0, prefill_tokens_per_s=1e9)
    driver = Driver(Engine(timing), clock=lambda: clock, on_step=lambda _: None)
    first = Sequence(prompt_tokens=8, output_tokens=1, arrived=driver.now())
    mailbox = driver.submit(first, interval=None)
    running = asyncio.create_task(driver.run())
    await asyncio.sleep(0)
    clock = 3.0
    second = Sequence(prompt_tokens=8, output_tokens=1, arrived=driver.now())
    other = driver.submit(second, interval=None)
    await mailbox.more_than(0)
    await other.more_than(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert second.arrived == pytest.approx(0.0005, abs=1e-5)
    assert second.first_token_at == pytest.approx(0.001, abs=1e-5)
