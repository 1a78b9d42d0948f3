"""Integer weights for shares, so that what other backends get does not change.

A Gateway API weight is a proportion from 0 to 1,000,000 (gateway-api apis/v1/shared_types.go),
an InferenceModel's from 1. The managed backends of a rule keep the sum that they had; if that
sum can't hold the split exactly, all weights of the rule are multiplied by the smallest factor
that can. That is the only time that somebody else's weight changes, and its share does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Apportionment:
    """Weights of the managed and of the other backends, in the order given.

    ``exact`` is False where no weights up to the limit hold the split and it was rounded.
    """

    managed: tuple[int, ...]
    others: tuple[int, ...]
    exact: bool


def apportion(
    fractions: Sequence[Fraction], total: int, others: Sequence[int], limit: int = LIMIT
) -> Apportionment:
    """Split ``total`` by fractions that add up to 1, beside ``others``.

    >>> apportion([Fraction(9, 10), Fraction(1, 10)], 2, [1])
    Apportionment(managed=(9, 1), others=(5,), exact=True)

    Raises ValueError for a total below 1 or fractions that do not add up to 1.
    """
    if total < 1 or sum(fractions) != 1:
        raise ValueError(f"can't split {total} by {[str(part) for part in fractions]}")
    parts = [part * total for part in fractions]
    factor = math.lcm(*(part.denominator for part in parts))
    if max([*parts, *map(Fraction, others)]) * factor <= limit:
        return Apportionment(
            managed=tuple(int(part * factor) for part in parts),
            others=tuple(weight * factor for weight in others),
            exact=True,
        )
    return _rounded(fractions, total, others, limit)


def _rounded(
    fractions: Sequence[Fraction], total: int, others: Sequence[int], limit: int
) -> Apportionment:
    """Round at the largest scale that fits, by largest remainder.

    A share above zero keeps a weight of at least 1 as long as there is room for all of them.
    """
    scale = max(limit // max([total, *others]), 1)
    room = total * scale
    wanted = [part * room for part in fractions]
    shown = [at for at, part in enumerate(wanted) if part]
    least = 1 if len(shown) <= room else 0
    weights = [max(math.floor(part), least if part else 0) for part in wanted]
    while sum(weights) != room:
        step = 1 if sum(weights) < room else -1
        # The one that is furthest from what it should have moves, but none below its least.
        index = max(
            (at for at in shown if weights[at] + step >= least),
            key=lambda at: step * (wanted[at] - weights[at]),
        )
        weights[index] += step
    return Apportionment(
        managed=tuple(weights), others=tuple(weight * scale for weight in others), exact=False
    )
