"""Whether a revision may take traffic, from what the pool's pods said so far. Pure.

The prober must keep traffic from a name that is not served, and must not take a healthy canary
down because one pod is new or slow. Hence:

- pods that became ready less than ``load_grace_s`` ago are not counted, unless there is no
  other pod at all;
- ready needs the latest answer of every counted pod;
- once ready, only definite answers count against it: ``missing_probes`` in a row from one
  settled pod, or from every pod (no ready pod counts as such a round); an unanswered probe
  proves nothing, the pod's own readiness and the error rate deal with it;
- the stable revision stays ready as long as any pod serves the name, because without an
  available stable pod Argo Rollouts skips SetWeight, on abort too.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Answer(enum.StrEnum):
    """What one probe found."""

    LISTED = "listed"
    MISSING = "missing"
    """The pod answered, without the name or with another identity."""
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The result of one probe; ``detail`` says in words what was found instead of the name."""

    answer: Answer
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is remembered of a pod's probes."""

    latest: Answer | None = None
    missing: int = 0
    """Definite answers without the name since the last one with it."""
    missing_settled: int = 0
    """Those of them that came when the pod was past its grace."""
    detail: str = ""

    def after(self, probe: Probe, *, settled: bool) -> History:
        """The history with one more probe."""
        match probe.answer:
            case Answer.LISTED:
                return History(latest=probe.answer)
            case Answer.UNANSWERED:
                return replace(self, latest=probe.answer, detail=probe.detail)
            case Answer.MISSING:
                return History(
                    latest=probe.answer,
                    missing=self.missing + 1,
                    missing_settled=self.missing_settled + settled,
                    detail=probe.detail,
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A ready pod of the pool. ``ready_since`` is in seconds since the epoch."""

    name: str
    ready_since: float
    history: History

    def settled(self, *, now: float, load_grace_s: float) -> bool:
        """Whether it has been ready for at least the grace."""
        return now - self.ready_since >= load_grace_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The two numbers that a user may set."""

    load_grace_s: float = 60.0
    missing_probes: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Ready or not, why, and which pods stand against it."""

    ready: bool
    reason: str
    lacking: tuple[str, ...] = ()


def decide(
    *,
    was_ready: bool,
    stable: bool,
    pods: Sequence[Pod],
    empty_rounds: int,
    now: float,
    rules: Rules,
) -> Decision:
    """Decide from the ready pods after one round of probes.

    ``empty_rounds`` counts the rounds in a row that found no ready pod. ``stable`` says that
    this revision is the Rollout's stable one, which it became only by having been ready.
    """
    if was_ready:
        return _stay_ready(stable=stable, pods=pods, empty_rounds=empty_rounds, rules=rules)
    if not pods:
        return Decision(ready=False, reason="the pool has no ready pod")
    if stable and any(pod.history.latest is Answer.LISTED for pod in pods):
        return Decision(ready=True, reason="stable, and at least one pod serves the name")
    settled = [pod for pod in pods if pod.settled(now=now, load_grace_s=rules.load_grace_s)]
    counted = settled or pods
    lacking = _names(pod for pod in counted if pod.history.latest is not Answer.LISTED)
    which = "settled" if settled else "ready"
    if lacking:
        reason = f"{len(lacking)} of {len(counted)} {which} pods do not show the name"
        return Decision(ready=False, reason=reason, lacking=lacking)
    return Decision(ready=True, reason=f"all {len(counted)} {which} pods serve the name")


def _stay_ready(*, stable: bool, pods: Sequence[Pod], empty_rounds: int, rules: Rules) -> Decision:
    if not pods:
        reason = f"the pool has had no ready pod for {empty_rounds} probes"
        return Decision(ready=empty_rounds < rules.missing_probes, reason=reason)
    if all(pod.history.missing >= rules.missing_probes for pod in pods):
        reason = f"no pod has served the name for {rules.missing_probes} probes"
        return Decision(ready=False, reason=reason, lacking=_names(pods))
    lost = _names(pod for pod in pods if pod.history.missing_settled >= rules.missing_probes)
    if lost and not stable:
        reason = (
            f"{len(lost)} of {len(pods)} pods have lacked the name for "
            f"{rules.missing_probes} probes"
        )
        return Decision(ready=False, reason=reason, lacking=lost)
    lacking = _names(pod for pod in pods if pod.history.latest is not Answer.LISTED)
    reason = "the name is served" if not lacking else "some pods do not show the name yet"
    return Decision(ready=True, reason=reason, lacking=lacking)


def _names(pods: Iterable[Pod]) -> tuple[str, ...]:
    return tuple(sorted(pod.name for pod in pods))
