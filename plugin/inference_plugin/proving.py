"""Asks the data plane whether it divides requests as commanded, before a step is verified.

Off unless a Rollout's configuration has ``dataPlaneProof``. It never holds a canary for ever: after
``timeoutSeconds`` the step is verified without a proof, and an Event says so.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.revisions import revision_of
from inference_plugin.counters import CountersError
from inference_plugin.proofs import Proof, counted, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inference_plugin.commanded import Commanded
    from inference_plugin.config import RouterConfig
    from inference_plugin.rollouts import Command
    from inference_plugin.telling import Teller
    from inference_plugin.tools import Tools

_log = structlog.get_logger(__name__)
WAITING: Final = "WaitingForProof"
EXPIRED: Final = "ProofExpired"


class Prover:
    """The proofs of one Rollout's steps."""

    def __init__(
        self, tools: Tools, teller: Teller, clock: Callable[[], float] = time.time
    ) -> None:
        """Nothing is proven yet. ``clock`` gives seconds since the epoch."""
        self._tools = tools
        self._teller = teller
        self._clock = clock
        self._proven: Any = None

    async def holds(
        self, command: Command, config: RouterConfig, entries: Sequence[Commanded]
    ) -> bool:
        """Whether the command's split is proven, or need not be; asks once it is in effect."""
        proof = config.dataPlaneProof
        if proof is None or not command.weighting.desired or not entries:
            return True
        wish = (command.hashes, command.weighting)
        if self._proven == wish:
            return True
        uid = command.spec.uid
        since = max(entry.since for entry in entries) + config.settleSeconds
        elapsed_s = self._clock() - since
        state, text = Proof.TOO_FEW, "the weights have only just taken effect"
        if elapsed_s >= 1:
            state, text = await self._ask(command, config, elapsed_s)
        if state is Proof.PROVEN:
            self._proven = wish
            self._teller.over(uid, WAITING, EXPIRED)
            _log.info("split proven", rollout=str(command.spec.key), counted=text)
            return True
        if elapsed_s > proof.timeoutSeconds:
            self._proven = wish
            self._teller.standing(
                uid,
                EXPIRED,
                f"No proof of the split within {proof.timeoutSeconds:g} s: {text}. Went on without "
                "it.",
            )
            return True
        if elapsed_s >= 1:
            self._teller.standing(uid, WAITING, f"{text[0].upper()}{text[1:]}.")
        return False

    async def _ask(
        self, command: Command, config: RouterConfig, elapsed_s: float
    ) -> tuple[Proof, str]:
        proof, counters = config.dataPlaneProof, self._tools.counters
        if counters is None or proof is None:
            return (
                Proof.TOO_FEW,
                "dataPlaneProof needs a plugin server that was started with --prometheus URL",
            )
        query = proof.query.replace("$window", f"{math.ceil(elapsed_s)}s")
        try:
            values = await counters.values(query, proof.label)
        except CountersError as error:
            return Proof.TOO_FEW, str(error)
        weighting = command.weighting
        share = weighting.desired / (weighting.desired + weighting.stable)
        canary, stable = (
            self._names(command, each) for each in (command.hashes.canary, command.hashes.stable)
        )
        found = counted(values, canary - stable, stable - canary)
        return judge(found, share, proof.minRequests)

    def _names(self, command: Command, pod_template_hash: str) -> set[str]:
        """What a version may be called in a label: its hash, and its destination."""
        namespace = command.spec.key.namespace
        found = revision_of(
            command.spec.uid,
            pod_template_hash,
            self._tools.cluster.replica_sets(namespace, pod_template_hash),
        )
        return {pod_template_hash, *([found.destination] if found and found.destination else [])}
