"""Which prompt goes when, and to which version first: random, and the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_analysis.observations import Arm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from inference_analysis.prompts.prompt_sets import Question

_SEEDS = 2**31
"""vLLM takes a seed of 64 bits; others stop at 32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One prompt to both versions, one right after the other."""

    question: Question
    repeat: int
    order: tuple[Arm, Arm]
    seed: int
    """For the sampling of both versions' answers."""


def turns(questions: Sequence[Question], *, repeats: int, seed: int) -> tuple[Turn, ...]:
    """Every prompt ``repeats`` times, shuffled; in each turn either version comes first.

    The seed of an answer depends on prompt and repeat alone, so both versions draw alike.
    """
    source = random.Random(seed)  # noqa: S311 - an order, no secret
    found = [
        Turn(
            question=question,
            repeat=repeat,
            order=(Arm.CANARY, Arm.STABLE),
            seed=random.Random(f"{seed}/{question.id}/{repeat}").randrange(_SEEDS),  # noqa: S311 - see above
        )
        for question in questions
        for repeat in range(repeats)
    ]
    source.shuffle(found)
    return tuple(
        Turn(
            question=turn.question,
            repeat=turn.repeat,
            order=turn.order if source.random() < 0.5 else (Arm.STABLE, Arm.CANARY),  # noqa: PLR2004 - a coin
            seed=turn.seed,
        )
        for turn in found
    )


class Pace:
    """At most ``rate`` starts a second, evenly spaced: a burst would be load of its own."""

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._interval = 1.0 / rate
        self._clock = clock
        self._sleep = sleep
        self._next = 0.0

    async def wait(self) -> None:
        """Until the next start is due."""
        now = self._clock()
        due = max(now, self._next)
        self._next = due + self._interval
        if due > now:
            await self._sleep(due - now)
