"""Whether requests may come: of one pool, and of a process that serves several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether it is ready, and what /readyz says about it."""

    ready: bool
    known: bool = True
    """Whether it has been found out yet; what is not known is not ready."""
    text: str = ""


def of_pool(detail: str, *, ready: bool, known: bool = True) -> Readiness:
    """Of one pool; ``detail`` is a line about it."""
    head = "ok" if ready else "not ready, or draining:"
    return Readiness(ready=ready, known=known, text=f"{head} {detail}".rstrip())


def of_all(pools: Sequence[Readiness]) -> Readiness:
    """Of the process: ready once all pools are known, as long as any is ready.

    A process that is not ready gets no requests of any pool: a pool that is deleted must not take
    the others with it.
    """
    known = all(each.known for each in pools)
    return Readiness(
        ready=known and any(each.ready for each in pools),
        known=known,
        text="\n".join(each.text for each in pools),
    )
