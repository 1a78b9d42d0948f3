"""The shares that this picker holds for one pool, whatever becomes of the annotation.

It fails closed: an annotation that is gone or can't be read changes nothing, a value older than
the one held is refused, and after a restart without a readable one only the Rollout's stable
version is served.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_common.shares import PoolShares, SharesError, commanded_weights, decode, digest

if TYPE_CHECKING:
    from inference_common.governing import Governor


class State(enum.StrEnum):
    """What the picker does with the pool's annotation; ``free`` is never told to anybody."""

    APPLIED = "applied"
    KEPT = "kept"
    """It is gone or unreadable: the last shares stay in force."""
    REFUSED = "refused"
    """It is older than the shares that are held, or was written by somebody else."""
    FREE = "free"
    """Nobody divides this pool: every version is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The shares in force (None: every version is served) and how they came to be.

    ``digest`` is of the text that ``shares`` were read from, empty where there was none.
    ``problem`` says what is wrong with the annotation, for log and alarm.
    """

    shares: PoolShares | None = None
    digest: str = ""
    state: State = State.FREE
    problem: str = ""

    def document(self) -> dict[str, Any]:
        """What is acknowledged (``inference_common.shares.ACKNOWLEDGEMENT_PATH``)."""
        weights = dict(self.shares.weights) if self.shares else {}
        return {
            "digest": self.digest,
            "state": self.state.value,
            "shares": weights,
            "problem": self.problem,
        }


def hold(
    held: Held,
    text: str | None,
    governor: Governor | None,
    *,
    known: bool,
    mark: str = "",
) -> Held:
    """What to hold after a look at the pool.

    ``text`` is the annotation, ``mark`` the plugin's own one beside it, ``governor`` the Rollout
    that divides the pool; ``known`` is whether the Rollouts have been read, without which their
    absence means nothing.
    """
    if text is None:
        if governor is None and (known or held.shares is None):
            return Held()
        return _without(held, governor, "the annotation is gone")
    try:
        found = decode(text)
    except SharesError as error:
        return _without(held, governor, f"the annotation is {error}")
    last = held.shares
    if last is not None and last.uid == found.uid and found.counter < last.counter:
        return Held(
            shares=last,
            digest=held.digest,
            state=State.REFUSED,
            problem=f"counter {found.counter} is older than {last.counter}",
        )
    commanded = commanded_weights(mark, found.rollout, found.uid)
    if last is not None and commanded is not None and commanded != dict(found.weights):
        return Held(
            shares=last,
            digest=held.digest,
            state=State.REFUSED,
            problem=f"shares {dict(found.weights)} are not what was commanded ({commanded})",
        )
    return Held(shares=found, digest=digest(text), state=State.APPLIED)


def _without(held: Held, governor: Governor | None, problem: str) -> Held:
    """Keep what is in force; after a restart only the stable version is known to be right."""
    if held.shares is not None:
        return Held(shares=held.shares, digest=held.digest, state=State.KEPT, problem=problem)
    if governor is None or not governor.stable:
        return Held(problem=problem)
    return Held(
        shares=PoolShares(
            rollout=governor.rollout,
            uid=governor.uid,
            counter=0,
            stable=governor.stable,
            weights={governor.stable: 1},
        ),
        state=State.KEPT,
        problem=f"{problem}; only the stable version {governor.stable} is served",
    )
