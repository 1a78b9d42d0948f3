"""What earlier looks at the same canary have already spent.

Every look at the data is a chance to be wrong. Planned looks share 80 % of each budget by
Lan-DeMets spending; the rest is a reserve: the j-th slot taken from it (a look outside the plan,
or a new epoch after an abort) may spend reserve * 2^-j. So the sum never exceeds the budget,
however often somebody resumes or retries (simple union bound).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from scipy.special import ndtr

from inference_analysis.spending import critical_values, spent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_analysis.policies import Policy

LAST_EPOCH = 2
"""A later epoch of the same canary needs somebody's acknowledgement."""


class LookKind(StrEnum):
    """How a look is paid for."""

    PLANNED = "planned"
    EXTRA = "extra"


@dataclass(frozen=True, slots=True, kw_only=True)
class LookRequest:
    """What the caller wants to look at."""

    id: str
    """Identity of the AnalysisRun; the same one never costs a second look."""
    fraction: float
    """Share of the planned canary pod-time that has passed, in (0, 1]."""
    aborted_at_s: float = 0.0
    """When the rollout was last aborted; 0 if never. Data from then on form a new epoch."""
    acknowledged_epoch: int = 0
    """Highest epoch that somebody has acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look that was taken."""

    id: str
    kind: LookKind
    fraction: float
    until_s: float
    slot: int = 0
    """Which slot of the reserve an extra look took."""
    pass_use: int = 0
    """0: no PASS was possible; j: the j-th look that could have said PASS."""
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of looks under one plan: the first, or one after a retry or a new policy."""

    epoch: int
    since_s: float
    policy: str
    """Fingerprint of the policy."""
    budget: float
    """Part of each gate's alpha that its planned looks spend."""
    start: float = 0.0
    """Information fraction at which the segment began."""
    looks: tuple[Look, ...] = ()

    @property
    def planned(self) -> tuple[float, ...]:
        """Fractions of the planned looks, counted from the segment's start to the end."""
        return tuple(self.scaled(x.fraction) for x in self.looks if x.kind is LookKind.PLANNED)

    def scaled(self, fraction: float) -> float:
        """The fraction counted from the segment's start; 1 when the plan had ended before."""
        if self.start >= 1.0:
            return 1.0
        return (fraction - self.start) / (1.0 - self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All looks at one canary."""

    segments: tuple[Segment, ...] = ()
    tail_edges: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Edges of tail gates, fixed at the first look."""

    @property
    def slots(self) -> int:
        """Slots of the reserve that are taken."""
        looks = sum(x.kind is LookKind.EXTRA for s in self.segments for x in s.looks)
        return looks + len({s.epoch for s in self.segments} - {1})

    @property
    def pass_uses(self) -> int:
        """Looks so far that could have said PASS."""
        return max((x.pass_use for s in self.segments for x in s.looks), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where a look stands: which data it may use and what it may spend."""

    ledger: Ledger
    """With the look's segment; of a replayed look: as it was before that look."""
    latest: Ledger
    """With every look that was ever taken."""
    look: Look
    replayed: bool
    reserve: float
    pass_budget: float
    acknowledged_epoch: int = 0

    @property
    def segment(self) -> Segment:
        """The segment that the look belongs to."""
        return self.ledger.segments[-1]

    @property
    def needs_acknowledgement(self) -> bool:
        """Whether this epoch may only decide once somebody has acknowledged it."""
        return self.segment.epoch > max(LAST_EPOCH, self.acknowledged_epoch)

    def fail_level(self, alpha: float) -> float:
        """One-sided nominal level of this look for a gate with this alpha."""
        if self.look.kind is LookKind.EXTRA:
            return alpha * self.reserve * 2.0**-self.look.slot
        fractions = (*self.segment.planned, self.segment.scaled(self.look.fraction))
        return float(ndtr(-critical_values(fractions, alpha * self.segment.budget)[-1]))

    def final_level(self, alpha: float) -> float:
        """The nominal level that the last planned look will have, for what could still be found."""
        if self.look.kind is LookKind.EXTRA:
            return self.fail_level(alpha)
        now = self.segment.scaled(self.look.fraction)
        fractions = (*self.segment.planned, now, *(() if now >= 1.0 else (1.0,)))
        return float(ndtr(-critical_values(fractions, alpha * self.segment.budget)[-1]))

    @property
    def may_pass(self) -> bool:
        """Whether this look can say PASS: the planned end is reached."""
        return self.look.pass_use > 0

    @property
    def pass_level(self) -> float:
        """One-sided level of "not worse by the margin": .8 alpha first, reserve * 2^-j later."""
        use = max(self.look.pass_use, 1)
        if use == 1:
            return self.pass_budget * (1.0 - self.reserve)
        return self.pass_budget * self.reserve * 2.0 ** -(use - 1)

    def booked(self, verdict: str, tail_edges: Mapping[str, float]) -> Ledger:
        """The ledger after this look; unchanged when the look was replayed."""
        if self.replayed:
            return self.latest
        segment = replace(
            self.segment, looks=(*self.segment.looks, replace(self.look, verdict=verdict))
        )
        return Ledger(
            segments=(*self.ledger.segments[:-1], segment),
            tail_edges={**tail_edges, **self.ledger.tail_edges},
        )


def stand(
    ledger: Ledger, request: LookRequest, policy: Policy, *, fingerprint: str, until_s: float
) -> Stand:
    """Where the requested look stands in the ledger.

    A look whose id the ledger has is replayed: same data, same level, nothing spent.
    """
    for number, segment in enumerate(ledger.segments):
        for position, look in enumerate(segment.looks):
            if look.id == request.id:
                before = replace(segment, looks=segment.looks[:position])
                return Stand(
                    ledger=replace(ledger, segments=(*ledger.segments[:number], before)),
                    latest=ledger,
                    look=look,
                    replayed=True,
                    reserve=policy.reserve,
                    pass_budget=policy.pass_alpha,
                    acknowledged_epoch=request.acknowledged_epoch,
                )
    ledger = _opened(ledger, request, policy, fingerprint)
    segment = ledger.segments[-1]
    latest = max((x.fraction for x in segment.looks), default=segment.start)
    planned = request.fraction > latest and request.fraction > segment.start
    can_pass = request.fraction >= 1.0
    return Stand(
        ledger=ledger,
        latest=ledger,
        look=Look(
            id=request.id,
            kind=LookKind.PLANNED if planned else LookKind.EXTRA,
            fraction=request.fraction,
            until_s=until_s,
            slot=0 if planned else ledger.slots + 1,
            pass_use=ledger.pass_uses + 1 if can_pass else 0,
        ),
        replayed=False,
        reserve=policy.reserve,
        pass_budget=policy.pass_alpha,
        acknowledged_epoch=request.acknowledged_epoch,
    )


def _opened(ledger: Ledger, request: LookRequest, policy: Policy, fingerprint: str) -> Ledger:
    """The ledger with the segment that a new look belongs to."""
    if not ledger.segments:
        first = Segment(
            epoch=1,
            since_s=request.aborted_at_s,
            policy=fingerprint,
            budget=1.0 - policy.reserve,
        )
        return replace(ledger, segments=(first,))
    last = ledger.segments[-1]
    if request.aborted_at_s > last.since_s:
        retry = Segment(
            epoch=last.epoch + 1,
            since_s=request.aborted_at_s,
            policy=fingerprint,
            budget=policy.reserve * 2.0 ** -(ledger.slots + 1),
        )
        return replace(ledger, segments=(*ledger.segments, retry))
    if fingerprint != last.policy:
        reached = max((x.fraction for x in last.looks), default=last.start)
        # The share of alpha that is spent grows with alpha, so the whole family's is an upper
        # bound for that of each gate.
        alpha = policy.family_alpha * last.budget
        used = spent(last.scaled(reached), alpha) / alpha if alpha else 1.0
        changed = Segment(
            epoch=last.epoch,
            since_s=last.since_s,
            policy=fingerprint,
            budget=last.budget * (1.0 - used),
            start=min(reached, 1.0),
        )
        return replace(ledger, segments=(*ledger.segments, changed))
    return ledger
