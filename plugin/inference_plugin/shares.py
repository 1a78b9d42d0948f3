"""Shares of traffic: from the controller's desired weight to a number per revision."""

from __future__ import annotations

from dataclasses import dataclass

from inference_plugin.errors import ConfigError

DEFAULT_MAX_WEIGHT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """The pod-template-hashes of the stable and the canary revision; equal once promoted."""

    stable: str
    canary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """A destination beside the two revisions: the pods of one template of an Experiment.

    ``service`` is the Service that Argo Rollouts made for it, the hash that of the template's
    ReplicaSet; both are empty where the Experiment's status lacks them (experiments.identified).
    """

    service: str
    pod_template_hash: str
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """What the controller asks for: the canary's weight out of ``maximum``, and the Experiment's.

    ``additional`` are the templates of the Experiment that runs at the moment.
    """

    desired: int
    additional: tuple[Extra, ...] = ()
    maximum: int = DEFAULT_MAX_WEIGHT

    @property
    def away(self) -> int:
        """What does not go to the stable revision."""
        return self.desired + sum(extra.weight for extra in self.additional)

    @property
    def stable(self) -> int:
        """What is left for the stable revision.

        Raises ConfigError when the others ask for more than there is.
        """
        left = self.maximum - self.away
        least = min((self.desired, *(extra.weight for extra in self.additional)))
        if left < 0 or least < 0:
            asked = {extra.pod_template_hash: extra.weight for extra in self.additional}
            raise ConfigError(
                f"Weights ask for more than maxTrafficWeight {self.maximum}, or for less than 0: "
                f"canary {self.desired}, experiment {asked}. Correct the weight of a step."
            )
        return left


def shares_by_hash(hashes: Hashes, weighting: Weighting) -> dict[str, int]:
    """Shares of the two revisions; with the Experiment's they add up to ``weighting.maximum``.

    Hashes that are equal are summed: after a promotion (h, h) with weight 0 gives h everything.
    """
    shares: dict[str, int] = {hashes.stable: weighting.stable}
    shares[hashes.canary] = shares.get(hashes.canary, 0) + weighting.desired
    return shares
