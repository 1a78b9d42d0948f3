"""Each Rollout that names the plugin: whether its configuration leads anywhere."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from inference_common.kube import ROLLOUT
from inference_plugin.doctor.checks import Check, fail, ok, warn
from inference_plugin.explain.explanation import NOT_YET, explain
from inference_plugin.rollouts import is_being_deleted, key_of, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference_plugin.carriers import Permissions
    from inference_plugin.cluster import Cluster
    from inference_plugin.explain.explanation import Explanation

Object = dict[str, Any]


def check_rollouts(cluster: Cluster, *, now: float, permissions: Permissions) -> Iterator[Check]:
    """One check for each Rollout with something to say, one for all others together."""
    well = 0
    for rollout in sorted(cluster.rollouts(), key=lambda each: str(key_of(each))):
        if spec_of(rollout) is None or is_being_deleted(rollout):
            continue
        found = explain(
            rollout,
            cluster,
            available=functools.partial(
                cluster.available, rollout["metadata"]["namespace"], rollout["metadata"]["uid"]
            ),
            now=now,
            permissions=permissions,
        )
        check = _judged(found) if found else None
        if check is None:
            well += 1
        else:
            yield check
    yield ok("rollouts", f"{well} {ROLLOUT.kind}{'' if well == 1 else 's'} without a remark")


def _judged(found: Explanation) -> Check | None:
    name = f"rollout {found.rollout}"
    if found.problem == NOT_YET:
        return None
    command = f"inference-rollouts plugin explain {found.rollout}"
    if found.problem:
        return fail(name, found.problem, "correct it; until then no weight moves")
    if found.drift:
        return warn(
            name, "; ".join(found.drift), f"see what changes it; {command} has the commanded state"
        )
    gateway = [text for reason, text in found.awaited if reason == "WaitingForGateway"]
    if gateway:
        return fail(
            name,
            f"not accepted: {'; '.join(gateway)}",
            "see the route's status and the gateway's log; no step is verified before",
        )
    if found.awaited:
        listed = "; ".join(f"{reason}: {text}" for reason, text in found.awaited)
        return warn(name, listed, f"{command} tells more")
    return None
