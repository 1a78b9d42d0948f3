"""Decides on each request and keeps its books: divide, split, schedule, count."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Final

import structlog

from inference_common.names import PROBE_HEADER
from inference_picker.admission import Admission, flow_of, priority_of
from inference_picker.config import PickerConfig
from inference_picker.messages import Ended, Finish, Phase, Pick, Reason, Refused, Sample
from inference_picker.outcomes import MALFORMED, failure_of
from inference_picker.prompts import read_prompt
from inference_picker.scheduler import Question
from inference_picker.sessions import Session, session_of, token_of
from inference_picker.subsets import Subset
from inference_picker.targets import Drawn, TargetDraw
from inference_picker.versions import Divider, key_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from inference_picker.board import Board, Flight
    from inference_picker.messages import ChooseTarget, PickEndpoint
    from inference_picker.metrics import Metrics
    from inference_picker.pool import PoolSnapshot, Source
    from inference_picker.ranking import Pods
    from inference_picker.readings import Readings
    from inference_picker.versions import Division

    Answer = tuple[Pick, Flight] | Refused

_log = structlog.get_logger(__name__)

# Mean duration of followed requests: where it starts, and how fast it follows.
_FIRST_GUESS_S: Final = 2.0
_LEARNING_RATE: Final = 0.05

EJECTED: Final = "ejected"
FULL: Final = "full"
"""Why a version could not take a request: all its endpoints are ejected, or it has no room."""

_PATIENCE_S: Final = 10.0
"""A client that leaves sooner without any answer says nothing about the endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How requests are treated."""

    expose_target_model: bool = False
    """Whether responses keep the target's name instead of the name the client asked for."""
    fallbacks: int = 0
    """How many endpoints are named behind the first one."""
    config: PickerConfig = field(default_factory=PickerConfig)
    """How endpoints are chosen."""


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
        start: int = 0,
        clock: Callable[[], float] = time.monotonic,
        pool: str = "",
    ) -> None:
        """``start`` is where the even sequences begin; pickers of one pool differ in it.

        ``pool`` is the pool's name in the log, where it has one.
        """
        self.log = _log.bind(pool=pool) if pool else _log
        self.metrics = metrics
        config = settings.config
        # Several pickers of one pool must not draw the same endpoints at the same time.
        self.scheduler = config.scheduler(Random(start))  # noqa: S311 - nothing secret is drawn
        self.admission: Admission[tuple[Pick, Flight]] = Admission(
            self.scheduler.board, thresholds=config.thresholds, limits=config.queue, clock=clock
        )
        self._hands_out_tokens = config.hands_out_tokens
        self._random = Random(start)  # noqa: S311 - names of sessions are no secret
        self._source = source
        self._settings = settings
        self._divider = Divider(start)
        self._clock = clock
        self.unmet: Counter[tuple[str, str]] = Counter()
        """Requests by the version that was drawn for them and could not take them, and by why."""
        self._targets = TargetDraw(start)
        self._followed_s = _FIRST_GUESS_S

    @property
    def pool(self) -> PoolSnapshot:
        """The pool as it is now."""
        return self._source.snapshot()

    @property
    def flights(self) -> Board:
        """Where requests in flight are counted."""
        return self.scheduler.board

    def read_pods(self) -> Pods:
        """The endpoints whose metrics pages have been read of late."""
        return self.scheduler.board.read_pods(at=self._clock())

    def note_readings(self, address: str, readings: Readings | None) -> None:
        """Take in an endpoint's metrics page that was read just now; None when there was none."""
        self.scheduler.board.note_readings(address, readings, at=self._clock())
        self.admission.look()

    def pick(self, question: PickEndpoint) -> Answer | Awaitable[Answer]:
        """Endpoints and target for a request, and its flight, which the caller must land.

        Where the request has to wait, what to await: cancelling that gives its place up.
        """
        pool = self._source.snapshot()
        self.scheduler.sync(pool, at=self._clock())
        return self.admission.admit(
            lambda: self._pick(question),
            priority=priority_of(question.headers, pool.objectives),
            flow=flow_of(question.headers),
            size=len(question.body),
        )

    def _pick(self, question: PickEndpoint) -> Answer:
        pool = self._source.snapshot()
        model = question.model
        key = key_of(question.headers, question.content)
        sent, session = self._session(question)
        key = key or session or None
        drawn = Drawn(name="") if model is None else self._draw(pool, model, key)
        if drawn is None:
            return _no_target(model)
        target = drawn.name
        at = self._clock()
        division = self._divide(pool, question, key, at)
        prompt = read_prompt(question.content, target)
        choice = self.scheduler.choose(
            pool,
            Question(
                target=target or None,
                headers=question.headers,
                subset=question.subset,
                among=None if division is None else division.endpoints,
                prompt=prompt,
                wanted=1 + self._settings.fallbacks,
                explain=question.explain,
            ),
            at=at,
        )
        order = choice.ranking.endpoints
        if not order:
            return _no_endpoint(pool, question)
        first = order[0]
        sample = drawn.sample if division is None else division.sample
        pick = Pick(
            endpoints=tuple(each.address for each in order),
            model=model or "",
            target=target,
            version=first.version,
            # The analysis' own prompts are compared by it, not by the picker's series.
            sample=Sample.BACKGROUND if PROBE_HEADER in question.headers else sample,
            phase=Phase.WARMUP if self.scheduler.is_warming(first.address) else Phase.WARM,
            bucket=drawn.bucket if division is None else division.bucket,
            prompt_bytes=prompt.size,
            decision=choice.ranking.decision,
            session=Session(
                sent=sent, tokens={each.address: token_of(each, session) for each in order}
            )
            if session
            else None,
            rewrite_back=self._writes_back(model, target),
        )
        return pick, self.scheduler.take_off(choice, at=at)

    def retarget(self, question: ChooseTarget) -> Pick | Refused:
        """The same pick with a target, where the endpoint came before the model was known."""
        pool = self._source.snapshot()
        drawn = self._draw(pool, question.model, None)
        if drawn is None:
            return _no_target(question.model)
        return replace(
            question.pick,
            model=question.model,
            target=drawn.name,
            sample=question.pick.sample if pool.held.shares else drawn.sample,
            rewrite_back=self._writes_back(question.model, drawn.name),
        )

    def finish(self, finish: Finish) -> None:
        """Learn from how a picked request ended."""
        failure = failure_of(finish)
        address = finish.served or finish.pick.endpoints[0]
        if _blames_endpoint(failure, finish):
            ejected = self.scheduler.failed(address, at=self._clock(), reason=str(failure))
            if ejected is not None:
                self.log.warning(
                    "endpoint ejected",
                    endpoint=address,
                    reason=ejected.reason,
                    seconds=ejected.seconds,
                    status=finish.status,
                )
        elif failure is None and finish.status is not None:
            self.scheduler.succeeded(address)
        if finish.ended is Ended.COMPLETE and failure is None:
            self._followed_s += (finish.duration_s - self._followed_s) * _LEARNING_RATE
            if finish.first_token_s is not None:
                self.scheduler.estimates.saw_answer(finish.duration_s - finish.first_token_s)
            usage = None if finish.tokens is None else finish.tokens.usage
            if usage is not None:
                self.scheduler.estimates.saw_usage(
                    prompt_bytes=finish.pick.prompt_bytes,
                    prompt_tokens=usage.prompt,
                    output_tokens=usage.output,
                )

    def unfollowed(self, flight: Flight, finish: Finish) -> None:
        """Keep a request in flight whose end will not be seen, for as long as others take."""
        del finish
        asyncio.get_running_loop().call_later(self._followed_s, flight.land)

    def _divide(
        self, pool: PoolSnapshot, question: PickEndpoint, key: str | None, at: float
    ) -> Division | None:
        """The version for a request, where a Rollout divides the pool between versions."""
        shares = pool.held.shares
        if shares is None:
            return None
        staying = tuple(each for each in pool.endpoints if not each.terminating)
        allowed = staying or pool.endpoints
        if question.subset is not None:
            subset = Subset(question.subset)
            allowed = tuple(each for each in allowed if subset.allows(each.address))
        division = self._divider.divide(
            shares,
            allowed,
            key=key,
            is_full=lambda endpoint: self.scheduler.is_full(endpoint.address, at=at),
        )
        if division.version != division.wanted:
            own = [each.address for each in allowed if each.version == division.wanted]
            is_ejected = bool(own) and not any(map(self.scheduler.ejector.health, own))
            self.unmet[division.wanted, EJECTED if is_ejected else FULL] += 1
        return division

    def _session(self, question: PickEndpoint) -> tuple[str, str]:
        """The token that a request carries, and its session; empty where there are no sessions."""
        if not self._hands_out_tokens or PROBE_HEADER in question.headers:
            return "", ""
        return session_of(question.headers, self._random)

    def _draw(self, pool: PoolSnapshot, model: str, key: str | None) -> Drawn | None:
        split = pool.splits.get(model) or pool.other
        return self._targets.draw(split, model, key=key, names=pool.names)

    def _writes_back(self, model: str | None, target: str) -> bool:
        return model is not None and model != target and not self._settings.expose_target_model


def _blames_endpoint(failure: str | None, finish: Finish) -> bool:
    """Whether a failure is the endpoint's: a client that leaves soon and a 4xx are not."""
    if failure == Ended.NO_RESPONSE:
        return finish.duration_s >= _PATIENCE_S
    return failure in {"5xx", MALFORMED, str(Ended.RESET)}


def _no_endpoint(pool: PoolSnapshot, question: PickEndpoint) -> Refused:
    within = "" if question.subset is None else " within the gateway's subset hint"
    return Refused(
        status=503,
        reason=Reason.NO_ENDPOINTS,
        message=f"No ready endpoint{within}, of {len(pool.endpoints)} in the pool.",
    )


def _no_target(model: str | None) -> Refused:
    return Refused(
        status=404,
        reason=Reason.NO_TARGET,
        message=f"Model {model!r} is reserved, but no target model has a weight above zero.",
    )
