"""Sends a prompt set to both versions and keeps what they answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inference_analysis.errors import EndpointError, InputError
from inference_analysis.observations import Arm
from inference_analysis.prompts.endpoints import Limits, ask
from inference_analysis.prompts.schedules import Pace, turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import aiohttp

    from inference_analysis.prompts.endpoints import Endpoint, Reply
    from inference_analysis.prompts.prompt_sets import PromptSet, Question
    from inference_analysis.prompts.schedules import Turn

MOST_STABLE_PROBLEMS = 0.05
"""Share of stable's answers that may be missing. With more the canary would look better for it."""


HOPELESS = 10
"""So many missing answers without a single one that came: the endpoint does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """How the prompts are sent."""

    repeats: int = 1
    seed: int = 0
    concurrency: int = 4
    """Requests in flight, both versions together."""
    rate: float = 2.0
    """Requests started a second, both versions together."""
    limits: Limits = field(default_factory=Limits)
    stream: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One prompt's answers by both versions."""

    question: Question
    repeat: int
    canary: Reply
    stable: Reply


def require_two(endpoints: Mapping[Arm, Endpoint]) -> None:
    """Raise InputError when both versions would be asked in the very same way."""
    canary, stable = endpoints[Arm.CANARY], endpoints[Arm.STABLE]
    told_apart = (
        canary.addresses != stable.addresses
        or canary.model != stable.model
        or dict(canary.headers) != dict(stable.headers)
    )
    if not told_apart:
        raise InputError(
            f"canary and stable are both {canary.address()} with model {canary.model!r} and the "
            "same headers. Give two addresses, or one with a header or model of its own for each"
        )


async def probe(
    session: aiohttp.ClientSession,
    prompt_set: PromptSet,
    endpoints: Mapping[Arm, Endpoint],
    plan: ProbePlan,
) -> tuple[Exchange, ...]:
    """All answers, ordered as in the prompt set.

    Raises EndpointError when a version is not reached or refuses, when too many of stable's
    answers are missing, or when several versions answer for one; InputError when both arms are the
    same.
    """
    require_two(endpoints)
    plans = turns(prompt_set.questions, repeats=plan.repeats, seed=plan.seed)
    # A turn asks one version after the other, so turns in flight are requests in flight.
    places = asyncio.Semaphore(plan.concurrency)
    pace = Pace(plan.rate, clock=time.monotonic, sleep=asyncio.sleep)

    outcomes: dict[Arm, list[str]] = {arm: [] for arm in Arm}

    async def take(number: int, turn: Turn) -> Exchange:
        replies: dict[Arm, Reply] = {}
        async with places:
            for arm in turn.order:
                await pace.wait()
                replies[arm] = reply = await ask(
                    session,
                    endpoints[arm],
                    plan.limits,
                    messages=turn.question.messages,
                    parameters={"seed": turn.seed, **turn.question.parameters},
                    tools=turn.question.tools,
                    stream=plan.stream,
                    turn=number,
                )
                outcomes[arm].append(reply.answer.problem)
                if len(outcomes[arm]) == HOPELESS:
                    _require_any(endpoints[arm], outcomes[arm])
        return Exchange(
            question=turn.question,
            repeat=turn.repeat,
            canary=replies[Arm.CANARY],
            stable=replies[Arm.STABLE],
        )

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(take(*item)) for item in enumerate(plans)]
    except BaseExceptionGroup as errors:
        # The first one says it all; the others are cancelled.
        known = errors.subgroup(EndpointError)
        if known is None:
            raise
        raise _first(known) from None
    place = {question.id: at for at, question in enumerate(prompt_set.questions)}
    found = sorted(
        (task.result() for task in tasks), key=lambda e: (place[e.question.id], e.repeat)
    )
    for arm in Arm:
        _require_any(endpoints[arm], outcomes[arm])
    _require_answers(found)
    for arm in Arm:
        _require_one_version(arm, [getattr(e, arm.value) for e in found])
    return tuple(found)


def _first(errors: BaseExceptionGroup[EndpointError]) -> EndpointError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _require_any(endpoint: Endpoint, problems: Sequence[str]) -> None:
    if all(problems):
        raise EndpointError(
            f"{endpoint.name}: {endpoint.address()} gave none of {len(problems)} answers. The "
            f"last: {problems[-1]}"
        )


def _require_answers(exchanges: Sequence[Exchange]) -> None:
    missing = [e.stable.answer.problem for e in exchanges if e.stable.answer.problem]
    if len(missing) > MOST_STABLE_PROBLEMS * len(exchanges):
        raise EndpointError(
            f"stable: {len(missing)} of {len(exchanges)} answers are missing, so there is nothing "
            f"to compare with. The first: {missing[0]}"
        )


def _require_one_version(arm: Arm, replies: Sequence[Reply]) -> None:
    versions = sorted({reply.version for reply in replies if reply.version})
    if len(versions) > 1:
        raise EndpointError(
            f"{arm.value}: answers came from {len(versions)} versions ({', '.join(versions)}; "
            "system_fingerprint). Address one version alone: its own Service, or a header route"
        )
