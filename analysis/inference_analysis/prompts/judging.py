"""Asks a judge about all pairs, in both orders."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_analysis.errors import EndpointError
from inference_analysis.prompts.endpoints import Limits, ask
from inference_analysis.prompts.judge import Preference, Tally, messages, preference, same, winner

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp

    from inference_analysis.prompts.endpoints import Endpoint
    from inference_analysis.prompts.judge import Winner
    from inference_analysis.prompts.probing import Exchange

_PARAMETERS = {"temperature": 0, "max_tokens": 1024}
"""Room for a judge that thinks first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePlan:
    """How a judge is asked."""

    concurrency: int = 4
    nonsense_limit: float = 0.1
    """Share of pairs without a verdict above which the judge is not believed at all."""
    limits: Limits


async def judge(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    exchanges: Sequence[Exchange],
    plan: JudgePlan,
) -> tuple[Preference, ...]:
    """A preference for each exchange; a missing answer loses, and two missing ones are a tie.

    Raises EndpointError when the judge is not reached, or when more than the limit of its replies
    are no verdicts.
    """
    places = asyncio.Semaphore(plan.concurrency)

    async def one(exchange: Exchange, *, canary_first: bool) -> Winner | None:
        canary, stable = exchange.canary.answer, exchange.stable.answer
        pair = (canary, stable) if canary_first else (stable, canary)
        async with places:
            reply = await ask(
                session,
                endpoint,
                plan.limits,
                messages=messages(exchange.question, *pair),
                parameters=_PARAMETERS,
                stream=False,
            )
        return winner(reply.answer)

    async def both(exchange: Exchange) -> Preference:
        canary, stable = exchange.canary.answer, exchange.stable.answer
        if canary.problem or stable.problem:
            if canary.problem and stable.problem:
                return Preference.TIE
            return Preference.STABLE if canary.problem else Preference.CANARY
        if same(canary, stable):
            return Preference.TIE
        first = await one(exchange, canary_first=True)
        return preference(first, await one(exchange, canary_first=False))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(both(exchange)) for exchange in exchanges]
    except BaseExceptionGroup as errors:
        known = errors.subgroup(EndpointError)
        if known is None:
            raise
        raise known.exceptions[0] from None
    found = tuple(task.result() for task in tasks)
    tally = Tally.of(found)
    if tally.nonsense > plan.nonsense_limit * tally.pairs:
        raise EndpointError(
            f"judge: {endpoint.model!r} gave no verdict on {tally.nonsense} of {tally.pairs} pairs "
            f'(limit {plan.nonsense_limit:.0%}; wanted: {{"winner": "A"}}, "B" or "tie"). Take a '
            "more able model"
        )
    return found
