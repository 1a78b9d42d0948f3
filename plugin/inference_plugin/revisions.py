"""Which two revisions a call of the controller is about.

SetWeight carries no hashes: they are read from the Rollout's status. The controller may be a
moment ahead of the watch, so that the pair of its UpdateHash and the resourceVersion that it works
from say when to read again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inference_common.kube import ROLLOUT
from inference_plugin.errors import StaleError
from inference_plugin.rollouts import Command, belongs_on_stable, hashes_of, spec_of

if TYPE_CHECKING:
    from inference_plugin.cluster import Cluster
    from inference_plugin.rollouts import RolloutKey, RolloutSpec
    from inference_plugin.shares import Hashes, Weighting

Object = dict[str, Any]


class Revisions:
    """The revisions of one Rollout, as far as they are known now."""

    def __init__(self, key: RolloutKey, cluster: Cluster) -> None:
        """Nothing was hinted at yet."""
        self._key = key
        self._cluster = cluster
        self._hint: Hashes | None = None

    async def note(self, spec: RolloutSpec, hashes: Hashes) -> None:
        """Remember the pair that the controller means; read the Rollout if it is news."""
        self._hint = hashes
        if self._pair(spec) != hashes:
            await self._cluster.refresh_rollout(self._key, "hash_mismatch")

    async def command(
        self,
        spec: RolloutSpec,
        weighting: Weighting,
        generation: int,
        version: str = "",
        *,
        hinted: bool = True,
    ) -> Command:
        """The command, with the revisions that the Rollout's status names.

        ``version`` is the resourceVersion that the controller works from, empty if unknown.

        The pair of the UpdateHash just before, if there was one, only checks it: a difference
        after a live read means that the controller works from an older state than the API
        server's, and its next call will be right. Raises StaleError and KubeError.
        """
        hint, self._hint = (self._hint, None) if hinted else (None, self._hint)
        await self._cluster.rollout_known(self._key, version)
        if self._looks_outdated(weighting, generation):
            await self._cluster.refresh_rollout(self._key, "behind")
        hashes = self._pair(spec)
        if hashes is None or (hint is not None and hint != hashes):
            await self._cluster.refresh_rollout(self._key, "hash_mismatch")
            hashes = self._pair(spec)
        if hashes is None:
            raise StaleError(
                f"Rollout {self._key} (uid {spec.uid}) has no stable and current revision in its "
                "status. The next call is tried again."
            )
        if hint is not None and hint != hashes:
            raise StaleError(
                f"The controller means canary {hint.canary} and stable {hint.stable}, but the "
                f"status of Rollout {self._key} says {hashes.canary} and {hashes.stable}. The next "
                "call is tried again."
            )
        own = self._own(spec)
        return Command(
            spec=own, hashes=hashes, weighting=replace(weighting, maximum=own.max_weight)
        )

    def of(self, rollout: Object) -> Hashes | None:
        """The pair in that Rollout's status; None before its first deploy."""
        uid = rollout["metadata"]["uid"]
        return hashes_of(
            rollout, lambda one: self._cluster.available(self._key.namespace, uid, one)
        )

    def _own(self, spec: RolloutSpec) -> RolloutSpec:
        """How the Rollout is routed by the API server's word.

        The caller's copy only says which Rollout it means: over a network, whoever may call must
        not be able to name the objects that are written. Raises StaleError.
        """
        rollout = self._cluster.get(ROLLOUT, self._key.namespace, self._key.name)
        own = spec_of(rollout) if rollout else None
        if own is None or own.uid != spec.uid:
            raise StaleError(
                f"Rollout {self._key} (uid {spec.uid}) is not routed by this plugin, or no longer. "
                "The next call is tried again."
            )
        return own

    def _pair(self, spec: RolloutSpec) -> Hashes | None:
        rollout = self._cluster.get(ROLLOUT, self._key.namespace, self._key.name)
        if rollout is None or rollout["metadata"]["uid"] != spec.uid:
            return None
        return self.of(rollout)

    def _looks_outdated(self, weighting: Weighting, generation: int) -> bool:
        """Whether the Rollout as it is known can't be what the call was made from."""
        found = self._cluster.get(ROLLOUT, self._key.namespace, self._key.name)
        if found is None or found["metadata"].get("generation", 0) < generation:
            return True
        return belongs_on_stable(found) and weighting.away > 0
