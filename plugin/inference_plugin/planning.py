"""From a command and a view of the cluster to what must be written, awaited or refused.

``plan`` is the whole decision of the plugin; it reads only its arguments. Its caller writes what
it says and plans again on the answers, until nothing is left to write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    ROLLOUT,
    Resource,
)
from inference_plugin import commanded, destinations
from inference_plugin.config import DestinationMode, DriftPolicy, OnEnd, ZeroWeight, parse_config
from inference_plugin.errors import ConfigError
from inference_plugin.gateway_status import unaccepted
from inference_plugin.hash_pools import advance
from inference_plugin.models import plan_model
from inference_plugin.pools import aim, release_pool
from inference_plugin.rollouts import spec_of
from inference_plugin.route_plan import plan_route
from inference_plugin.routes import ROUTES, managed_rules, resource_of, shares_of, title_of
from inference_plugin.schemas import list_fault
from inference_plugin.splits import split_of
from inference_plugin.targets import Context, ObjectPlan, Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_plugin.backends import Backend
    from inference_plugin.config import ModelListConfig, RouterConfig
    from inference_plugin.patches import Write
    from inference_plugin.rollouts import Command, RolloutSpec
    from inference_plugin.targets import Target
    from inference_plugin.view import View

Object = dict[str, Any]
_NOTE_LIMIT_S: Final = 60.0
"""An expired hold is worth an Event when it happens, not for ever after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now for one command.

    ``writes`` first, in order; with none left, ``reached`` says whether the objects carry what
    was commanded, ``unaccepted`` what the gateways have not taken in of it, ``prepared`` whether
    nothing is left to get ready for the next step, ``hold`` why pods must stay for the moment.
    """

    writes: tuple[Write, ...] = ()
    waits: tuple[Wait, ...] = ()
    notes: tuple[str, ...] = ()
    drifted: bool = False
    reached: bool = False
    unaccepted: str = ""
    prepared: bool = True
    hold: Wait | None = None

    @property
    def verified(self) -> bool:
        """Whether the traffic is where the command wants it."""
        return self.reached and not self.unaccepted

    @property
    def done(self) -> bool:
        """Whether nothing has to happen any more."""
        return self.verified and self.prepared and self.hold is None

    @property
    def retry_s(self) -> float | None:
        """When to look again even if nothing changes."""
        waits = [*self.waits, *([self.hold] if self.hold else [])]
        return min((wait.retry_s for wait in waits if wait.retry_s is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Namespaces, besides a Rollout's own, whose routes and models may be named in its config."""

    namespaces: frozenset[str] = frozenset()


def plan(command: Command, view: View, *, now: float, permissions: Permissions) -> Decision:
    """The next thing to do for a command, at the wall-clock time ``now`` (seconds).

    Raises ConfigError where a manifest is wrong, UnknownRevisionError where a revision is not
    known yet.
    """
    config = parse_config(command.spec.config)
    if any(command.weighting.additional.values()):
        raise ConfigError(
            "An Experiment's templates have weights "
            f"({dict(command.weighting.additional)}), which this version does not route. Remove "
            "the weight from the experiment step's templates."
        )
    if config.mode is DestinationMode.MODEL:
        return _plan_model(command, config, view, now, permissions)
    return _plan_routes(command, config, view, now, permissions)


def managed_objects(
    spec: RolloutSpec, config: RouterConfig, permissions: Permissions, view: View
) -> list[tuple[Resource, str, str]]:
    """The objects that carry the weights: resource, namespace, name.

    Raises ConfigError for a namespace that is not permitted, and for a configured list that the
    API server does not keep.
    """
    own = spec.key.namespace
    namespace = config.namespace or own
    if namespace != own and not {namespace, "*"} & permissions.namespaces:
        raise ConfigError(
            f"namespace {namespace!r} is not the Rollout's own ({own}), and the plugin server "
            f"does not allow it. Start it with --allow-namespace {namespace}, or leave namespace "
            "out."
        )
    if config.inferenceModel:
        return [(INFERENCEMODEL, namespace, config.inferenceModel)]
    if config.inferenceModelRewrite:
        resource = _rewrite_resource(config.inferenceModelRewrite.group, view)
        return [(resource, namespace, config.inferenceModelRewrite.name)]
    if config.modelList:
        return [(_list_resource(config.modelList, view), namespace, config.modelList.name)]
    return [(ROUTES[kind], namespace, route.name) for kind, route in config.routes]


def _rewrite_resource(group: str | None, view: View) -> Resource:
    """The resource type of InferenceModelRewrites.

    Upstream's picker ignores the older group where both are installed (llm-d-router
    pkg/epp/server/controller_config.go).
    """
    legacy = group == INFERENCEMODELREWRITE_X.group
    if legacy or (group is None and not view.serves(INFERENCEMODELREWRITE)):
        return INFERENCEMODELREWRITE_X
    return INFERENCEMODELREWRITE


def _list_resource(listed: ModelListConfig, view: View) -> Resource:
    resource = view.kind(listed.group, listed.kind)
    if resource is None:
        raise ConfigError(
            f"This cluster serves no kind {listed.kind} in the group {listed.group}. Install its "
            "CustomResourceDefinition, or correct modelList.kind and modelList.group."
        )
    fault = list_fault(view.schema(resource), listed)
    if fault:
        raise ConfigError(
            f"{resource.kind} ({resource.api_version}) of this cluster has {fault}, so that the "
            "API server would drop what is written there. Correct modelList, or install the "
            "version of its CustomResourceDefinition that has it."
        )
    return resource


def read_object(view: View, resource: Resource, namespace: str, name: str) -> Object:
    """The object; raises ConfigError that says what was found where it does not exist."""
    if not view.serves(resource):
        raise ConfigError(
            f"This cluster does not serve {resource.plural}.{resource.group}/{resource.version}, "
            f"which {resource.kind} {namespace}/{name} needs. Install its CustomResourceDefinition."
        )
    found = view.get(resource, namespace, name)
    if found is None:
        names = ", ".join(sorted(view.names(resource, namespace))) or "none"
        raise ConfigError(
            f"{resource.kind} {namespace}/{name} ({resource.api_version}) does not exist (found in "
            f"{namespace}: {names}). Create it, or correct the name in the Rollout."
        )
    return found


def _plan_routes(
    command: Command, config: RouterConfig, view: View, now: float, permissions: Permissions
) -> Decision:
    routes = [
        read_object(view, *where)
        for where in managed_objects(command.spec, config, permissions, view)
    ]
    if config.mode is DestinationMode.HASH_ADDRESSED:
        return _plan_hash_pools(command, config, view, now, routes)
    if config.mode is DestinationMode.NAMED:
        target, waits = destinations.named(command, config, view)
    else:
        target, waits = destinations.static(command, config, view), ()
    for backend in sorted(target.shares):
        if backend == target.stable or target.shares[backend]:
            read_object(view, backend.resource, backend.namespace, backend.name)
    held_back = _without_stable(command, target.gate(target.stable))
    if held_back:
        return held_back
    plans = _route_plans(routes, target, command, config, view, now)
    return _decide(command, config, view, now, routes, plans, waits, prepared=True)


def _plan_hash_pools(
    command: Command, config: RouterConfig, view: View, now: float, routes: list[Object]
) -> Decision:
    resource = INFERENCEPOOL if config.poolGroup == INFERENCEPOOL.group else INFERENCEPOOL_X
    namespace = command.spec.key.namespace
    pools = [read_object(view, resource, namespace, name) for name in config.inferencePools or ()]
    backends = destinations.pool_backends(pools, resource)
    retired = destinations.retired_pools(command, view, routes, backends)
    if retired:
        writes = tuple(release_pool(found, pool) for found, pool in retired)
        return Decision(writes=writes[:1], prepared=False)
    accepted = [view.accepted_for_s(route) for route in routes]
    shares = [
        shares_of(route, backends, _rules(route, backends, command, config)) for route in routes
    ]
    situation = destinations.pool_situation(
        command,
        view,
        pools=pools,
        shares=tuple(max(found[backend] for found in shares) for backend in backends),
        accepted_for_s=None if None in accepted else min(at for at in accepted if at is not None),
        settle_s=config.settleSeconds,
    )
    step = advance(situation)
    if command.own and step.stable is not None:
        gate = destinations.pool_gate(view, pools[step.stable], settle_s=0.0)
        held_back = _without_stable(command, gate)
        if held_back:
            return held_back
    if step.aim is not None:
        index, pod_template_hash = step.aim
        write = aim(resource, pools[index], pod_template_hash)
        return Decision(writes=(write,), prepared=False)
    waits = (step.wait,) if step.wait else ()
    if step.shares is None:
        promoted = command.hashes.stable == command.hashes.canary
        return Decision(
            waits=waits,
            prepared=False,
            hold=_new_home_hold(config, command) if promoted else None,
        )
    target = destinations.hash_addressed(
        view,
        step=step,
        pools=pools,
        backends=backends,
        maximum=command.weighting.maximum,
        settle_s=config.settleSeconds,
    )
    plans = _route_plans(routes, target, command, config, view, now)
    placed = step.canary is not None
    decision = _decide(command, config, view, now, routes, plans, waits, prepared=placed)
    if command.weighting.desired and not placed:
        return replace(decision, reached=False)
    return decision


def _plan_model(
    command: Command, config: RouterConfig, view: View, now: float, permissions: Permissions
) -> Decision:
    [where] = managed_objects(command.spec, config, permissions, view)
    split = split_of(read_object(view, *where), where[0], config)
    target, waits = destinations.adapters(command, view, split)
    held_back = _without_stable(command, target.gate(target.stable))
    if held_back:
        return held_back
    plan_ = plan_model(split, target, context=_context(command, config, view, now))
    # Nothing reports that a split was taken in: upstream's picker never writes a status, so that
    # reading it back is all the verification there is.
    return Decision(
        writes=(plan_.patch,) if plan_.patch else (),
        waits=(*waits, *plan_.waits),
        notes=plan_.notes,
        drifted=plan_.drifted,
        reached=plan_.patch is None and not plan_.waits,
    )


def _route_plans(
    routes: Sequence[Object],
    target: Target[Backend],
    command: Command,
    config: RouterConfig,
    view: View,
    now: float,
) -> list[ObjectPlan]:
    context = _context(command, config, view, now)
    return [
        plan_route(
            route,
            target,
            context=context,
            rules=_rules(route, target.required, command, config),
        )
        for route in routes
    ]


def _rules(
    route: Object,
    required: Sequence[Backend] | frozenset[Backend],
    command: Command,
    config: RouterConfig,
) -> tuple[int, ...]:
    this = (resource_of(route).kind, route["metadata"]["name"])
    [names] = [item.rules for kind, item in config.routes if (kind, item.name) == this]
    entry = commanded.read(route, str(command.spec.key))
    return managed_rules(
        route,
        required=required,
        names=names,
        entry=entry if entry and entry.uid == command.spec.uid else None,
        may_add=config.mode is DestinationMode.NAMED,
    )


def _decide(
    command: Command,
    config: RouterConfig,
    view: View,
    now: float,
    routes: Sequence[Object],
    plans: Sequence[ObjectPlan],
    waits: Sequence[Wait],
    *,
    prepared: bool,
) -> Decision:
    writes = tuple(plan_.patch for plan_ in plans if plan_.patch)
    blocked = {wait.message: wait for plan_ in plans for wait in plan_.waits}
    hold, expired = (None, ()) if writes else _hold(command, config, view, now, routes, plans)
    return Decision(
        writes=writes,
        waits=(*waits, *blocked.values()),
        notes=(*(note for plan_ in plans for note in plan_.notes), *expired),
        drifted=any(plan_.drifted for plan_ in plans),
        reached=not writes and not blocked,
        unaccepted="; ".join(
            f"{title_of(route)}: {missing}" for route in routes if (missing := unaccepted(route))
        ),
        prepared=prepared,
        hold=hold,
    )


def _hold(
    command: Command,
    config: RouterConfig,
    view: View,
    now: float,
    routes: Sequence[Object],
    plans: Sequence[ObjectPlan],
) -> tuple[Wait | None, tuple[str, ...]]:
    """Why the controller must not scale pods down yet, and the holds that were given up.

    Pods stay until every gateway has accepted the route that no longer sends to them, and, where
    they belong to neither current revision (the controller ends those in the same reconcile),
    the settle time longer; at most ``holdSeconds``.
    """
    if command.weighting.desired:
        return None, ()
    expired = []
    for route, plan_ in zip(routes, plans, strict=True):
        entry = plan_.entry
        if entry is None or not entry.drained:
            continue
        accepted = view.accepted_for_s(route)
        left = entry.since + config.holdSeconds - now
        if accepted is None and left > 0:
            message = f"{title_of(route)}: weight 0 of {', '.join(entry.drained)} is not in "
            return Wait(
                reason=WaitReason.HOLD,
                message=f"{message}effect yet: {unaccepted(route)}.",
                retry_s=left,
                quiet=True,
            ), ()
        if accepted is None and left > -_NOTE_LIMIT_S:
            expired.append(
                f"{title_of(route)}: no gateway confirmed weight 0 of {', '.join(entry.drained)} "
                f"within {config.holdSeconds:g} s ({unaccepted(route)}); going on."
            )
        if accepted is not None and entry.gone and accepted < config.settleSeconds and left > 0:
            return Wait(
                reason=WaitReason.HOLD,
                message=f"{title_of(route)}: weight 0 of {', '.join(entry.gone)} is settling.",
                retry_s=config.settleSeconds - accepted,
                quiet=True,
            ), ()
    return None, tuple(expired)


def _new_home_hold(config: RouterConfig, command: Command) -> Wait:
    """Pods of the old revision stay while the promoted one has no pool yet."""
    return Wait(
        reason=WaitReason.HOLD,
        message=f"none of the pools {', '.join(config.inferencePools or ())} serves the promoted "
        f"revision {command.hashes.stable} yet.",
        quiet=True,
    )


def _without_stable(command: Command, gate: Wait | None) -> Decision | None:
    """The server's own move to stable waits for stable to have a ready endpoint."""
    if not command.own or gate is None:
        return None
    wait = Wait(
        reason=WaitReason.STABLE,
        message=f"Traffic belongs on the stable revision, which can't take it: {gate.message}",
        retry_s=gate.retry_s,
    )
    return Decision(waits=(wait,), prepared=False)


def _context(command: Command, config: RouterConfig, view: View, now: float) -> Context:
    def owner_lives(name: str, uid: str) -> bool:
        namespace, _, short = name.partition("/")
        found = view.get(ROLLOUT, namespace, short)
        return found is not None and found["metadata"]["uid"] == uid and spec_of(found) is not None

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
    )
