"""What the plugin reads of a Rollout: who it is, its configuration, its two revisions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_common.names import PLUGIN_NAME
from inference_plugin.shares import DEFAULT_MAX_WEIGHT, Hashes, Weighting

if TYPE_CHECKING:
    from collections.abc import Callable

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RolloutKey:
    """Namespace and name of a Rollout."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """The part of a Rollout's manifest that says how its traffic is routed."""

    key: RolloutKey
    uid: str
    config: bytes
    stable_service: str = ""
    canary_service: str = ""
    max_weight: int = DEFAULT_MAX_WEIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One wish about one Rollout's traffic: what SetWeight asks for, in full.

    ``own`` marks a wish that the server derived itself from the Rollout (traffic back to
    stable); it is held back while stable has no ready endpoint, the controller's never is.
    """

    spec: RolloutSpec
    hashes: Hashes
    weighting: Weighting
    own: bool = False


def key_of(rollout: Object) -> RolloutKey:
    """Namespace and name."""
    metadata = rollout["metadata"]
    return RolloutKey(namespace=metadata["namespace"], name=metadata["name"])


def canary_strategy(rollout: Object) -> Object:
    """``spec.strategy.canary``, empty where there is none."""
    found: Object = rollout.get("spec", {}).get("strategy", {}).get("canary") or {}
    return found


def spec_of(rollout: Object) -> RolloutSpec | None:
    """How the Rollout's traffic is routed by this plugin; None where it is not."""
    canary = canary_strategy(rollout)
    routing = canary.get("trafficRouting") or {}
    plugins = routing.get("plugins") or {}
    if PLUGIN_NAME not in plugins:
        return None
    return RolloutSpec(
        key=key_of(rollout),
        uid=rollout["metadata"]["uid"],
        config=json.dumps(plugins[PLUGIN_NAME], sort_keys=True).encode(),
        stable_service=canary.get("stableService", ""),
        canary_service=canary.get("canaryService", ""),
        max_weight=routing.get("maxTrafficWeight") or DEFAULT_MAX_WEIGHT,
    )


def hashes_of(rollout: Object, available: Callable[[str], int]) -> Hashes | None:
    """The pair that the controller means, from the Rollout's status; None before the first deploy.

    ``available`` gives the available pods of the Rollout's revision with a hash.

    Stable is ``status.stableRS``. Canary is ``status.currentPodHash``, which the controller
    writes one reconcile before it uses it, except while it rolls back dynamically to the stable
    revision: then it is the revision that its last weights were for (argo-rollouts v1.10.2,
    rollout/trafficrouting.go and utils/rollout/rolloututil.go IsDynamicallyRollingBackToStable).
    """
    status = rollout.get("status") or {}
    stable = status.get("stableRS") or ""
    current = status.get("currentPodHash") or ""
    if not stable or not current:
        return None
    if _rolls_back_dynamically(rollout, available):
        return Hashes(stable=stable, canary=_weighted_canary(status))
    return Hashes(stable=stable, canary=current)


def belongs_on_stable(rollout: Object) -> bool:
    """Whether all traffic belongs on the stable revision, whatever the controller waits for.

    True when aborted or fully promoted. With dynamicStableScale the controller moves traffic
    back only as fast as stable pods appear, and it does so by itself: False.
    """
    canary = canary_strategy(rollout)
    if canary.get("dynamicStableScale"):
        return False
    status = rollout.get("status") or {}
    return bool(status.get("abort")) or (
        bool(status.get("stableRS")) and status.get("stableRS") == status.get("currentPodHash")
    )


def step_weight(rollout: Object) -> int | None:
    """The weight that the step asks for at which the Rollout stands; None where no step decides.

    The controller scales the canary down for a lower weight before it asks for that weight: while
    the canary has too many pods for the new step it repeats the weight of the step before
    (argo-rollouts v1.10.2, rollout/trafficrouting.go reconcileTrafficRouting). Who wants the
    traffic gone first reads the step. With dynamicStableScale stable is not large enough yet.
    """
    canary = canary_strategy(rollout)
    status = rollout.get("status") or {}
    steps = canary.get("steps") or []
    index = int(status.get("currentStepIndex") or 0)
    undecided = canary.get("dynamicStableScale") or status.get("abort") or status.get("promoteFull")
    if undecided or index >= len(steps) or status.get("stableRS") == status.get("currentPodHash"):
        return None
    given = [step["setWeight"] for step in steps[: index + 1] if "setWeight" in step]
    return int(given[-1]) if given else 0


def weighted_templates(rollout: Object) -> list[tuple[str, int]]:
    """Name and weight of the weighted templates of the experiment step at which it stands.

    The controller asks for them in this order (argo-rollouts v1.10.2, rollout/trafficrouting.go
    calculateWeightDestinationsFromExperiment).
    """
    steps = canary_strategy(rollout).get("steps") or []
    index = int((rollout.get("status") or {}).get("currentStepIndex") or 0)
    step = steps[index] if index < len(steps) else {}
    return [
        (str(template["name"]), int(template["weight"]))
        for template in (step.get("experiment") or {}).get("templates") or []
        if template.get("weight") is not None
    ]


def ping_pong(rollout: Object) -> tuple[str, str] | None:
    """The Services that take turns, the stable one first; None where none do.

    Ping is stable while the status says so, else pong is (argo-rollouts v1.10.2,
    rollout/trafficrouting/service_helper.go). The turn changes in the same update of the status
    as the stable revision.
    """
    canary = canary_strategy(rollout)
    names = canary.get("pingPong") or {}
    pair = (str(names.get("pingService") or ""), str(names.get("pongService") or ""))
    if not all(pair):
        return None
    status = (rollout.get("status") or {}).get("canary") or {}
    return pair if status.get("stablePingPong") == "ping" else (pair[1], pair[0])


def is_being_deleted(rollout: Object) -> bool:
    """Whether the Rollout is on its way out."""
    return "deletionTimestamp" in rollout["metadata"]


def _rolls_back_dynamically(rollout: Object, available: Callable[[str], int]) -> bool:
    canary = canary_strategy(rollout)
    status = rollout.get("status") or {}
    if not canary.get("dynamicStableScale") or status["stableRS"] != status["currentPodHash"]:
        return False
    weighted = _weighted_canary(status)
    if not weighted or weighted == status["currentPodHash"]:
        return False
    return available(status["currentPodHash"]) < int(rollout["spec"].get("replicas", 1))


def _weighted_canary(status: Object) -> str:
    weights = (status.get("canary") or {}).get("weights") or {}
    return str((weights.get("canary") or {}).get("podTemplateHash") or "")
