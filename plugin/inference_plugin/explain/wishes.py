"""What the controller asks for at this moment, as far as the Rollout's status tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_plugin.rollouts import (
    Command,
    belongs_on_stable,
    canary_strategy,
    step_weight,
)
from inference_plugin.shares import Extra, Weighting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_plugin.commanded import Commanded
    from inference_plugin.rollouts import RolloutSpec
    from inference_plugin.shares import Hashes

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A command, and where it comes from in words."""

    command: Command
    source: str


def wish_of(
    rollout: Object,
    spec: RolloutSpec,
    hashes: Hashes,
    entries: Sequence[Commanded],
    *,
    canary_available: int,
) -> Wish:
    """The command that the next call of the controller would bring, or the server's own."""
    status = rollout.get("status") or {}
    steps = spec_steps(rollout)
    index = int(status.get("currentStepIndex") or 0)
    step = step_weight(rollout)
    own = False
    if belongs_on_stable(rollout):
        desired, own = 0, True
        source = (
            "the Rollout is aborted: all traffic belongs on stable"
            if status.get("abort")
            else "the Rollout is fully promoted: all traffic belongs on stable"
        )
    elif step and not canary_available:
        desired = 0
        source = f"the canary has no available pod yet; step {index + 1} of {steps} asks for {step}"
    elif step is not None:
        desired, source = step, f"step {index + 1} of {steps}"
    elif entries:
        newest = max(entries, key=lambda entry: entry.since)
        desired, source = newest.desired, "the last command; no step decides now"
    else:
        desired, source = 0, "nothing was commanded yet, and no step decides"
    given = (status.get("canary") or {}).get("weights") or {}
    additional = tuple(
        Extra(
            service=str(each.get("serviceName") or ""),
            pod_template_hash=str(each.get("podTemplateHash") or ""),
            weight=int(each.get("weight", 0)),
        )
        for each in given.get("additional") or []
    )
    weighting = Weighting(
        desired=desired, additional=() if own else additional, maximum=spec.max_weight
    )
    command = Command(spec=spec, hashes=hashes, weighting=weighting, own=own)
    return Wish(command=command, source=source)


def spec_steps(rollout: Object) -> int:
    """How many steps the Rollout has."""
    return len(canary_strategy(rollout).get("steps") or [])
