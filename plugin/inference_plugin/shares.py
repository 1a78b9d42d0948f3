"""Shares of traffic: from the controller's desired weight to a number per revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_plugin.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_MAX_WEIGHT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """The pod-template-hashes of the stable and the canary revision; equal once promoted."""

    stable: str
    canary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """What the controller asks for: the canary's weight out of ``maximum``, and the experiments'.

    ``additional`` maps a pod-template-hash to its weight.
    """

    desired: int
    additional: Mapping[str, int]
    maximum: int = DEFAULT_MAX_WEIGHT

    @property
    def stable(self) -> int:
        """What is left for the stable revision.

        Raises ConfigError when the others ask for more than there is.
        """
        left = self.maximum - self.desired - sum(self.additional.values())
        if left < 0 or self.desired < 0:
            raise ConfigError(
                f"Weights ask for more than maxTrafficWeight {self.maximum}: canary "
                f"{self.desired}, experiments {dict(self.additional)}. Lower a step's weight."
            )
        return left


def shares_by_hash(hashes: Hashes, weighting: Weighting) -> dict[str, int]:
    """Share of each pod-template-hash; they add up to ``weighting.maximum``.

    Hashes that are equal are summed: after a promotion (h, h) with weight 0 gives h everything.
    """
    shares: dict[str, int] = {hashes.stable: weighting.stable}
    shares[hashes.canary] = shares.get(hashes.canary, 0) + weighting.desired
    for pod_template_hash, weight in weighting.additional.items():
        shares[pod_template_hash] = shares.get(pod_template_hash, 0) + weight
    return shares
