"""A list of weighted entries, some of them managed, and its new weights for wanted shares.

A rule's backendRefs and an InferenceModel's targetModels are both such lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from inference_plugin.apportion import LIMIT, apportion

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the list: what it stands for, its weight (an absent one counts as 1)."""

    item: str
    weight: int
    managed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The shares to reach, out of ``maximum``, which they add up to.

    ``stable`` takes what items in ``blocked`` must not be given: those keep at most the share
    that they have.
    """

    shares: Mapping[str, int]
    maximum: int
    stable: str
    blocked: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resplit:
    """New weights: of each managed item, and of each other entry by its index in the list.

    ``changed`` is False where every weight is as it was; ``exact`` False where it was rounded.
    """

    managed: Mapping[str, int]
    others: Mapping[int, int]
    changed: bool
    exact: bool


class NoShareError(ValueError):
    """The managed entries have no share of the list that could be split."""


def current_shares(entries: Sequence[Entry]) -> dict[str, Fraction]:
    """The part of the managed sum that each managed item has now; all 0 when the sum is 0."""
    weights: dict[str, int] = {}
    for entry in entries:
        if entry.managed:
            weights[entry.item] = weights.get(entry.item, 0) + entry.weight
    total = sum(weights.values())
    return {item: Fraction(weight, total or 1) for item, weight in weights.items()}


def raised(entries: Sequence[Entry], wanted: Wanted) -> set[str]:
    """The items other than stable whose share would grow."""
    now = current_shares(entries)
    return {
        item
        for item, share in wanted.shares.items()
        if item != wanted.stable and Fraction(share, wanted.maximum) > now.get(item, 0)
    }


def resplit(entries: Sequence[Entry], wanted: Wanted) -> Resplit:
    """The weights that give the managed entries their shares, and the others what they had.

    Without other entries the weights are the shares themselves, out of ``maximum``. Weights whose
    proportions are right already stay as they are. The managed sum never becomes 0.

    Raises NoShareError when the managed sum is 0 while other entries have weight.
    """
    now = current_shares(entries)
    fractions = _allowed(now, wanted)
    items = list(fractions)
    others = {at: entry.weight for at, entry in enumerate(entries) if not entry.managed}
    total = sum(entry.weight for entry in entries if entry.managed)
    if total and all(fractions[item] == now.get(item, 0) for item in items):
        weights = {entry.item: entry.weight for entry in entries if entry.managed}
        return Resplit(
            managed={item: weights.get(item, 0) for item in items},
            others=others,
            changed=False,
            exact=True,
        )
    if not any(others.values()):
        total = min(wanted.maximum, LIMIT)
    elif not total:
        raise NoShareError("the managed entries have weight 0 in all")
    parts = apportion([fractions[item] for item in items], total, list(others.values()))
    return Resplit(
        managed=dict(zip(items, parts.managed, strict=True)),
        others=dict(zip(others, parts.others, strict=True)),
        changed=True,
        exact=parts.exact,
    )


def _allowed(now: Mapping[str, Fraction], wanted: Wanted) -> dict[str, Fraction]:
    """Shares as parts of 1, with blocked items held at what they have and stable given the rest.

    Managed items without a wanted share get none.
    """
    fractions = dict.fromkeys(now, Fraction(0))
    for item, share in wanted.shares.items():
        fraction = Fraction(share, wanted.maximum)
        if item in wanted.blocked:
            fraction = min(fraction, now.get(item, Fraction(0)))
        fractions[item] = fraction
    fractions[wanted.stable] = Fraction(1) - sum(
        (part for item, part in fractions.items() if item != wanted.stable), Fraction(0)
    )
    return fractions
