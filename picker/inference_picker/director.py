"""Decides on each request and keeps its books: split, schedule, count, record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from inference_picker.flights import Flight, Flights
from inference_picker.messages import Ended, Finish, Pick, Reason, Refused
from inference_picker.scheduling import Profile, SchedulingRequest, default_profile
from inference_picker.splits import EvenSequence

if TYPE_CHECKING:
    from inference_picker.messages import ChooseTarget, PickEndpoint
    from inference_picker.metrics import Metrics
    from inference_picker.pool import PoolSnapshot, Source

OTHER_MODEL: Final = "other"
"""Label of model names that neither an InferenceModel nor an endpoint knows: clients choose
names freely, and a label must not."""

_ERROR_STATUS: Final = 400
_SERVER_ERROR_STATUS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How requests are treated."""

    expose_target_model: bool = False
    """Whether responses keep the target's name instead of the name the client asked for."""
    watch_share: float = 1.0
    """Share of streamed answers, 0 to 1, whose body is watched for the time to first token.
    Answers whose model name is written back are watched in any case."""
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
        self._watched = EvenSequence(start)
        self._turn = 0
        self._bodies_come = False

    def pick(self, question: PickEndpoint) -> tuple[Pick, Flight] | Refused:
        """Endpoints and target for a request, and its flight, which the caller must land."""
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
            watch_body=self._watched.next_below(self._settings.watch_share),
        )
        self.metrics.picks.labels(first.version, first.address, self._label(pool, target)).inc()
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
        """Record how a picked request ended."""
        pool = self._source.snapshot()
        pick = finish.pick
        version = pick.version
        if finish.served is not None and finish.served != pick.endpoints[0]:
            served = pool.find(finish.served)
            version = version if served is None else served.version
        labels = (version, self._label(pool, pick.model), self._label(pool, pick.target))
        if finish.body_asked and finish.ended is not Ended.UNSEEN:
            self._bodies_come = True
        self.metrics.requests.labels(*labels).inc()
        failure = self._failure(finish)
        if failure is not None:
            self.metrics.errors.labels(*labels, failure).inc()
            return
        if finish.first_token_s is not None:
            self.metrics.first_token.labels(*labels).observe(finish.first_token_s)
        self.metrics.duration.labels(*labels).observe(finish.duration_s)

    def refused(self, reason: Reason) -> None:
        """Record that the picker answered a request itself."""
        self.metrics.refusals.labels(reason).inc()

    def _failure(self, finish: Finish) -> str | None:
        """The error class of a finished request, or None."""
        if finish.status is not None and finish.status >= _ERROR_STATUS:
            return "5xx" if finish.status >= _SERVER_ERROR_STATUS else "4xx"
        match finish.ended:
            case Ended.NO_RESPONSE | Ended.RESET:
                return str(finish.ended)
            case Ended.UNSEEN if finish.body_asked and self._bodies_come:
                # This gateway does send bodies it is asked for: this one broke before its start.
                return str(Ended.RESET)
            case _:
                return None

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

    def _label(self, pool: PoolSnapshot, name: str) -> str:
        """The name as a label's value; see `OTHER_MODEL`."""
        return name if not name or name in pool.names else OTHER_MODEL


def _no_target(model: str | None) -> Refused:
    return Refused(
        status=404,
        reason=Reason.NO_TARGET,
        message=f"Model {model!r} is reserved, but no target model has a weight above zero.",
    )
