"""Decides on each request and keeps its books: split, schedule, count."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from inference_picker.flights import Flight, Flights
from inference_picker.messages import Ended, Finish, Pick, Reason, Refused
from inference_picker.outcomes import failure_of
from inference_picker.scheduling import Profile, SchedulingRequest, default_profile
from inference_picker.splits import EvenSequence

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from inference_picker.messages import ChooseTarget, PickEndpoint
    from inference_picker.metrics import Metrics
    from inference_picker.pool import PoolSnapshot, Source

    Answer = tuple[Pick, Flight] | Refused

# Mean duration of followed requests: where it starts, and how fast it follows.
_FIRST_GUESS_S: Final = 2.0
_LEARNING_RATE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How requests are treated."""

    expose_target_model: bool = False
    """Whether responses keep the target's name instead of the name the client asked for."""
    fallbacks: int = 0
    """How many endpoints are named behind the first one."""


class Director:
    """Answers an exchange's questions from the pool as it is now.

    Nothing here awaits: choosing an endpoint and counting the request for it are one step.
    """

    def __init__(
        self,
        *,
        source: Source,
        metrics: Metrics,
        settings: Settings,
        profile: Profile | None = None,
        start: int = 0,
    ) -> None:
        """``start`` is where the even sequences begin; pickers of one pool differ in it."""
        self.metrics = metrics
        self.flights = Flights()
        self._source = source
        self._settings = settings
        self._profile = profile or default_profile()
        self._splits: dict[str | None, EvenSequence] = {}
        self._start = start
        self._turn = 0
        self._followed_s = _FIRST_GUESS_S

    @property
    def pool(self) -> PoolSnapshot:
        """The pool as it is now."""
        return self._source.snapshot()

    def pick(self, question: PickEndpoint) -> Answer | Awaitable[Answer]:
        """Endpoints and target for a request, and its flight, which the caller must land.

        Where the request has to wait, what to await: cancelling that gives its place up.
        """
        pool = self._source.snapshot()
        model = question.model
        target = "" if model is None else self._target(pool, model)
        if target is None:
            return _no_target(model)
        order = self._profile.order(
            SchedulingRequest(
                target=target or None,
                headers=question.headers,
                subset=question.subset,
                turn=self._turn,
            ),
            pool,
            self.flights.counts,
        )
        self._turn += 1
        if not order:
            within = "" if question.subset is None else " within the gateway's subset hint"
            return Refused(
                status=503,
                reason=Reason.NO_ENDPOINTS,
                message=f"No ready endpoint{within}, of {len(pool.endpoints)} in the pool.",
            )
        first = order[0]
        pick = Pick(
            endpoints=tuple(each.address for each in order[: 1 + self._settings.fallbacks]),
            model=model or "",
            target=target,
            version=first.version,
            rewrite_back=self._writes_back(model, target),
        )
        return pick, self.flights.take_off(first.address)

    def retarget(self, question: ChooseTarget) -> Pick | Refused:
        """The same pick with a target, where the endpoint came before the model was known."""
        pool = self._source.snapshot()
        target = self._target(pool, question.model)
        if target is None:
            return _no_target(question.model)
        return replace(
            question.pick,
            model=question.model,
            target=target,
            rewrite_back=self._writes_back(question.model, target),
        )

    def finish(self, finish: Finish) -> None:
        """Learn from how a picked request ended."""
        if finish.ended is Ended.COMPLETE and failure_of(finish) is None:
            self._followed_s += (finish.duration_s - self._followed_s) * _LEARNING_RATE

    def unfollowed(self, flight: Flight, finish: Finish) -> None:
        """Keep a request in flight whose end will not be seen, for as long as others take."""
        del finish
        asyncio.get_running_loop().call_later(self._followed_s, flight.land)

    def _target(self, pool: PoolSnapshot, model: str) -> str | None:
        split = pool.splits.get(model) or pool.other
        if split is None:
            return model
        if split.reserved:
            return None
        sequence = self._splits.setdefault(split.model, EvenSequence(self._start))
        return split.target_at(sequence.next()) or model

    def _writes_back(self, model: str | None, target: str) -> bool:
        return model is not None and model != target and not self._settings.expose_target_model


def _no_target(model: str | None) -> Refused:
    return Refused(
        status=404,
        reason=Reason.NO_TARGET,
        message=f"Model {model!r} is reserved, but no target model has a weight above zero.",
    )
