"""Whether counted requests show the split that was commanded: bounds of a binomial share.

The data plane draws each request's version by the weights, so that of n requests the canary's
number is binomial. The bounds are Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22,
1927) at 99.9 %, which keeps its level for small shares.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

CONFIDENCE: Final = 0.999
_Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Proof(enum.StrEnum):
    """What the counters say."""

    PROVEN = "proven"
    TOO_FEW = "too few"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Requests by version since the weights took effect."""

    canary: float
    stable: float

    @property
    def total(self) -> float:
        """Of both."""
        return self.canary + self.stable


def counted(
    values: Mapping[str, float], canary: Collection[str], stable: Collection[str]
) -> Counted:
    """The counters of the two versions, each by any of its names; others are left out."""
    return Counted(
        canary=sum(value for name, value in values.items() if name in canary),
        stable=sum(value for name, value in values.items() if name in stable),
    )


def bounds(part: float, total: float) -> tuple[float, float]:
    """Wilson's interval of a share, from its ``part`` of ``total`` > 0."""
    share, z2 = min(part / total, 1.0), _Z * _Z / total
    centre = (share + z2 / 2) / (1 + z2)
    reach = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total)) / (1 + z2)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def judge(found: Counted, share: float, minimum: float) -> tuple[Proof, str]:
    """Whether the canary's share is within its bounds, and the sentence that says so.

    ``share`` is what was commanded, 0 to 1; fewer than ``minimum`` requests prove nothing.
    """
    if found.total < minimum:
        text = (
            f"{found.total:.0f} requests were counted since the weights took effect, "
            f"{minimum:.0f} are needed"
        )
        return Proof.TOO_FEW, text
    low, high = bounds(found.canary, found.total)
    # A share of 0 or 1 is met at the very edge of the interval, where rounding decides.
    within = low - 1e-9 <= share <= high + 1e-9
    text = (
        f"the canary got {found.canary:.0f} of {found.total:.0f} requests "
        f"({found.canary / found.total:.1%}, bounds {low:.1%} to {high:.1%}), {share:.1%} was "
        "commanded"
    )
    return (Proof.PROVEN if within else Proof.CONTRADICTED), text
