"""What a plan aims at, and what it waits for: the values that planners pass to each other."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from inference_plugin.commanded import Commanded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inference_plugin.commanded import Placed
    from inference_plugin.managed_routes import ManagedRoute
    from inference_plugin.patches import ObjectPatch
    from inference_plugin.shares import Hashes

Item = TypeVar("Item")


class WaitReason(enum.StrEnum):
    """Why the weights are not what was asked for. Also the reason of the Event."""

    READY_PODS = "WaitingForReadyPods"
    PICKER = "WaitingForPicker"
    GATEWAY = "WaitingForGateway"
    DRAIN = "WaitingForDrain"
    SETTLE = "WaitingForSettling"
    STABLE = "WaitingForStable"
    DESTINATION = "WaitingForDestination"
    HOLD = "HoldingPods"
    DRIFT = "DriftReported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something that passes by itself. ``retry_s``: look again after so long, whatever happens.

    ``quiet`` ones are part of every healthy step and get a log line, no Event.
    """

    reason: WaitReason
    message: str
    retry_s: float | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Generic[Item]):
    """Shares per destination, out of ``maximum``; they add up to it.

    ``homes`` are the destinations of the two current revisions, ``required`` those that a list
    must hold to be managed without being named, ``untied`` those that no revision's end empties,
    ``gate`` says why a share must not be raised. ``canary`` is where header routes and mirrors go,
    None while it has no place; ``extras`` are destinations of an Experiment, with the ``ports`` of
    those that are Services.
    """

    shares: Mapping[Item, int]
    maximum: int
    stable: Item
    homes: frozenset[Item]
    required: frozenset[Item]
    gate: Callable[[Item], Wait | None]
    untied: frozenset[Item] = frozenset()
    canary: Item | None = None
    extras: frozenset[Item] = frozenset()
    ports: Mapping[Item, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a command brings to the plan of one object besides its target.

    ``owner_lives`` says whether the Rollout of that name and uid still exists and is routed here;
    ``forgets`` that backends at weight 0 which the configuration no longer names are let go;
    ``keeps_at_end`` that the weights stay where they are when the Rollout goes away. ``wished``
    are the managed routes to be had, ``beside`` changes with what is wished beside the weights.
    """

    rollout: str
    uid: str
    hashes: Hashes
    desired: int
    now: float
    may_add: bool
    remove_zero: bool
    report_drift: bool
    adopt_drift: bool = False
    forgets: bool = False
    keeps_at_end: bool = False
    wished: tuple[ManagedRoute, ...] = ()
    beside: str = ""
    owner_lives: Callable[[str, str], bool]

    def repeats(self, entry: Commanded, maximum: int) -> bool:
        """Whether the command is the one that the entry records."""
        return entry.asks_for(
            self.hashes.stable, self.hashes.canary, self.desired, maximum, self.beside
        )

    def entry(self, *, maximum: int, home: str, placed: tuple[Placed, ...]) -> Commanded:
        """What the annotation of an object is to say of this command, from now on."""
        return Commanded(
            rollout=self.rollout,
            uid=self.uid,
            stable=self.hashes.stable,
            canary=self.hashes.canary,
            desired=self.desired,
            maximum=maximum,
            placed=placed,
            since=self.now,
            home=home,
            keep=self.keeps_at_end,
            beside=self.beside,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectPlan:
    """One object's part: a patch or none, and what keeps it from its target.

    ``entry`` is what the annotation says before the patch; ``notes`` are for an Event.
    """

    patch: ObjectPatch | None
    entry: Commanded | None
    waits: tuple[Wait, ...]
    notes: tuple[str, ...] = ()
    drifted: bool = False
