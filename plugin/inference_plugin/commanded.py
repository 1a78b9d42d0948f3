"""What was last commanded, kept as an annotation on each managed object.

It is written in the same patch as the weights, which makes it true at every moment and lets the
server restart whenever it likes. One object may serve several Rollouts (two rules of one
HTTPRoute), so the annotation is a map from Rollout to state.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any, Final

from inference_common.names import COMMANDED_ANNOTATION

Object = dict[str, Any]
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Placed:
    """One managed entry: in which rule, which backend or target, and the weight given to it.

    ``place`` is the rule's name, or ``#`` and its index; empty for an InferenceModel. ``item`` is
    the backend as ``kind.group/namespace/name`` or the target's name. Weight 0 of a list whose
    entries need a weight of at least 1, or with zeroWeight ``remove``: the entry is absent.
    """

    place: str
    item: str
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One rule that was made for a managed route, as canonical JSON."""

    managed: str
    text: str

    @property
    def rule(self) -> Object:
        """The rule as it was written."""
        found: Object = json.loads(self.text)
        return found

    @property
    def name(self) -> str:
        """The rule's name."""
        return str(self.rule["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Commanded:
    """The last state commanded for one Rollout on one object.

    ``shares`` are what the split was made from (item to share, out of ``maximum``), ``drained``
    the items that this write took to zero, ``gone`` those of them that are of neither current
    revision, ``since`` the time of the write in seconds since the epoch, ``removed`` the
    backendRefs taken out of a rule, so that they come back as they were, ``home`` the item of the
    stable revision, ``adopted`` that ``placed`` are weights of somebody else that were taken over,
    ``keep`` that the weights stay when the Rollout goes away. ``made`` are rules of managed routes,
    ``added`` the (place, item) of backendRefs that exist only for an Experiment, ``beside`` changes
    with what the command wished beside the two revisions' weights.
    """

    rollout: str
    uid: str
    stable: str
    canary: str
    desired: int
    maximum: int
    placed: tuple[Placed, ...]
    drained: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    since: float = 0.0
    removed: tuple[tuple[str, str], ...] = ()
    home: str = ""
    adopted: bool = False
    keep: bool = False
    made: tuple[Made, ...] = ()
    added: tuple[tuple[str, str], ...] = ()
    beside: str = ""

    @property
    def items(self) -> frozenset[str]:
        """Every backend or target that has been managed."""
        return frozenset(entry.item for entry in self.placed)

    def asks_for(
        self, stable: str, canary: str, desired: int, maximum: int, beside: str = ""
    ) -> bool:
        """Whether this is what was commanded."""
        wish = (self.stable, self.canary, self.desired, self.maximum, self.beside)
        return wish == (stable, canary, desired, maximum, beside)

    @property
    def places(self) -> frozenset[str]:
        """Every rule that has been managed."""
        return frozenset(entry.place for entry in self.placed)


def read_all(obj: Object) -> dict[str, Commanded]:
    """What was commanded on the object, by Rollout (``namespace/name``).

    An annotation that can't be read counts as absent: it is rewritten by the next command.
    """
    text = (obj["metadata"].get("annotations") or {}).get(COMMANDED_ANNOTATION)
    return dict(_parsed(text)) if text else {}


@functools.lru_cache(maxsize=1024)
def _parsed(text: str) -> dict[str, Commanded]:
    try:
        found = json.loads(text)
        return {name: _decode(name, entry) for name, entry in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def read(obj: Object, rollout: str) -> Commanded | None:
    """What was commanded on the object for that Rollout (``namespace/name``)."""
    return read_all(obj).get(rollout)


def annotation_value(obj: Object, *entries: Commanded, forget: tuple[str, ...] = ()) -> str:
    """The annotation with these entries replaced or added, and those of ``forget`` left out."""
    known = read_all(obj) | {entry.rollout: entry for entry in entries}
    state = {name: _encode(entry) for name, entry in sorted(known.items()) if name not in forget}
    return json.dumps(state, separators=(",", ":"), sort_keys=True)


def canonical(obj: Object) -> str:
    """An object as JSON, the same text for the same content."""
    return json.dumps(obj, separators=(",", ":"), sort_keys=True)


def _encode(entry: Commanded) -> Object:
    return {
        "v": _VERSION,
        "uid": entry.uid,
        "stable": entry.stable,
        "canary": entry.canary,
        "weight": entry.desired,
        "max": entry.maximum,
        "refs": [[placed.place, placed.item, placed.weight] for placed in entry.placed],
        "drained": list(entry.drained),
        "gone": list(entry.gone),
        "at": round(entry.since, 3),
        "removed": [list(pair) for pair in entry.removed],
        "home": entry.home,
        "adopted": entry.adopted,
        "keep": entry.keep,
        # Only where there is something to say: most routes never have managed routes.
        **({"made": [[made.managed, made.rule] for made in entry.made]} if entry.made else {}),
        **({"added": [list(pair) for pair in entry.added]} if entry.added else {}),
        **({"beside": entry.beside} if entry.beside else {}),
    }


def _decode(name: str, entry: Object) -> Commanded:
    return Commanded(
        rollout=name,
        uid=str(entry["uid"]),
        stable=str(entry["stable"]),
        canary=str(entry["canary"]),
        desired=int(entry["weight"]),
        maximum=int(entry["max"]),
        placed=tuple(
            Placed(place=str(place), item=str(item), weight=int(weight))
            for place, item, weight in entry["refs"]
        ),
        drained=tuple(str(item) for item in entry["drained"]),
        gone=tuple(str(item) for item in entry["gone"]),
        since=float(entry["at"]),
        removed=tuple((str(place), str(ref)) for place, ref in entry["removed"]),
        home=str(entry.get("home", "")),
        adopted=bool(entry.get("adopted", False)),
        keep=bool(entry.get("keep", False)),
        made=tuple(
            Made(managed=str(managed), text=canonical(rule))
            for managed, rule in entry.get("made", [])
        ),
        added=tuple((str(place), str(item)) for place, item in entry.get("added", [])),
        beside=str(entry.get("beside", "")),
    )
