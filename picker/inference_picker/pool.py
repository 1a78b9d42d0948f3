"""What the scheduler knows: the endpoints of one pool at one moment, and its model splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from inference_picker.holding import Held

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from inference_picker.splits import ModelSplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One port of one pod that takes requests."""

    address: str
    """``ip:port``, IPv6 in brackets."""
    pod: str = ""
    version: str = ""
    models: frozenset[str] | None = None
    """Model and adapter names it lists, or None while that is unknown."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Labels of the pod."""
    terminating: bool = False
    """Whether the pod is being deleted; it is picked only where no other one is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """The pool at one moment. Pods that are unready are not in it."""

    endpoints: tuple[Endpoint, ...] = ()
    splits: Mapping[str, ModelSplit] = field(default_factory=dict)
    other: ModelSplit | None = None
    """The split of every model name that has none of its own."""
    names: frozenset[str] = frozenset()
    """Every model name that an endpoint lists or a split mentions."""
    objectives: Mapping[str, int] = field(default_factory=dict)
    """Priorities by the name of the InferenceObjective."""
    held: Held = field(default_factory=Held)
    """How requests are divided between versions, where a Rollout divides them."""

    def find(self, address: str) -> Endpoint | None:
        """The endpoint of this address."""
        return next((each for each in self.endpoints if each.address == address), None)


def make_snapshot(
    endpoints: Iterable[Endpoint],
    splits: Iterable[ModelSplit] = (),
    held: Held | None = None,
    objectives: Mapping[str, int] | None = None,
) -> PoolSnapshot:
    """A snapshot of these endpoints and splits; of two splits for one model the first counts."""
    members = tuple(endpoints)
    by_model: dict[str, ModelSplit] = {}
    other: ModelSplit | None = None
    for split in splits:
        if split.model is None:
            other = other or split
        else:
            by_model.setdefault(split.model, split)
    names = set(by_model)
    for split in (*by_model.values(), *([other] if other else [])):
        names.update(target.name for target in split.targets)
    for endpoint in members:
        names |= endpoint.models or frozenset()
    return PoolSnapshot(
        endpoints=members,
        splits=MappingProxyType(by_model),
        other=other,
        names=frozenset(names),
        objectives=MappingProxyType(dict(objectives or {})),
        held=held or Held(),
    )


def note_models(
    listed: dict[str, frozenset[str]], address: str, models: frozenset[str] | None
) -> bool:
    """Note which models an endpoint lists, None for not known; whether that is news."""
    if listed.get(address) == models:
        return False
    if models is None:
        listed.pop(address, None)
    else:
        listed[address] = models
    return True


class Source(Protocol):
    """Where snapshots come from."""

    def snapshot(self) -> PoolSnapshot:
        """The pool as it is now. Called for each request: it must be cheap."""
        ...

    def staleness_s(self) -> float | None:
        """Seconds since the snapshot was last known to be true; None while it is."""
        ...

    def detail(self) -> str:
        """One line about the pool and where it is known from, for /readyz."""
        ...


class StaticSource:
    """A pool that changes only when it is told to."""

    def __init__(self, snapshot: PoolSnapshot) -> None:
        """Start with this snapshot."""
        self.current = snapshot

    def snapshot(self) -> PoolSnapshot:
        """The snapshot that was set last."""
        return self.current

    def staleness_s(self) -> float | None:
        """Never stale."""
        return None

    def detail(self) -> str:
        """How many endpoints there are."""
        return f"{len(self.current.endpoints)} endpoints"
