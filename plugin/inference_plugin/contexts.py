"""What a command brings to the plan of every object: its context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_common.kube import ROLLOUT
from inference_plugin.config import DestinationMode, DriftPolicy, OnEnd, ZeroWeight
from inference_plugin.errors import ConfigError
from inference_plugin.managed_routes import digest, names_of, wished_routes
from inference_plugin.rollouts import spec_of
from inference_plugin.targets import Context

if TYPE_CHECKING:
    from inference_plugin.config import RouterConfig
    from inference_plugin.managed_routes import ManagedRoute
    from inference_plugin.rollouts import Command, RolloutSpec
    from inference_plugin.shares import Hashes
    from inference_plugin.view import View


def context_of(command: Command, config: RouterConfig, view: View, now: float) -> Context:
    """The context of a command. Raises ConfigError for steps that can't be had."""

    def owner_lives(name: str, uid: str) -> bool:
        namespace, _, short = name.partition("/")
        found = view.get(ROLLOUT, namespace, short)
        return found is not None and found["metadata"]["uid"] == uid and spec_of(found) is not None

    wished = wished_of(command.spec, command.hashes, config, view)
    extras = [
        (extra.service or extra.pod_template_hash, extra.weight)
        for extra in command.weighting.additional
    ]
    return Context(
        rollout=str(command.spec.key),
        uid=command.spec.uid,
        hashes=command.hashes,
        desired=command.weighting.desired,
        now=now,
        may_add=(config.mode is DestinationMode.NAMED or config.zeroWeight is ZeroWeight.REMOVE),
        remove_zero=config.zeroWeight is ZeroWeight.REMOVE,
        report_drift=config.drift is DriftPolicy.REPORT,
        adopt_drift=config.drift is DriftPolicy.ADOPT,
        forgets=config.mode is not DestinationMode.NAMED,
        keeps_at_end=config.onEnd is OnEnd.KEEP,
        owner_lives=owner_lives,
        wished=wished,
        beside=digest(wished, extras),
    )


def wished_of(
    spec: RolloutSpec, hashes: Hashes, config: RouterConfig, view: View
) -> tuple[ManagedRoute, ...]:
    """The managed routes that the Rollout's steps ask for; only routes can have any.

    Raises ConfigError for what can't be expressed.
    """
    rollout = view.get(ROLLOUT, spec.key.namespace, spec.key.name)
    if rollout is None or rollout["metadata"]["uid"] != spec.uid or not names_of(rollout):
        return ()
    available = view.available(spec.key.namespace, spec.uid, hashes.canary)
    wished = wished_routes(rollout, hashes, available)
    if wished and config.mode in {DestinationMode.MODEL, DestinationMode.SHARED_POOL}:
        raise ConfigError(
            f"Managed route {wished[0].name!r}: header routes and mirrors are rules of a route, "
            f"and {config.model_key or 'sharedPool'} has none: which version answers is decided "
            "behind the gateway. Remove the setHeaderRoute and setMirrorRoute steps."
        )
    return wished
