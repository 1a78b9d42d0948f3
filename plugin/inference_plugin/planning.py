"""From a command and a view of the cluster to what must be written, awaited or refused.

``plan`` is the whole decision of the plugin; it reads only its arguments. Its caller writes what
it says and plans again on the answers, until nothing is left to write.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import (
    INFERENCEPOOL,
    INFERENCEPOOL_X,
)
from inference_plugin import commanded, destinations, experiments
from inference_plugin.carriers import Permissions, managed_objects, read_object
from inference_plugin.config import DestinationMode, parse_config
from inference_plugin.contexts import context_of
from inference_plugin.decisions import Decision
from inference_plugin.gateway_status import unaccepted
from inference_plugin.hash_pools import advance
from inference_plugin.holds import hold_of, new_home_hold, without_stable
from inference_plugin.made_rules import sent_to
from inference_plugin.models import plan_model
from inference_plugin.pool_shares import picker_pods, plan_pool_shares, unacknowledged
from inference_plugin.pools import aim, release_pool
from inference_plugin.route_plan import plan_route
from inference_plugin.routes import (
    item_of,
    managed_rules,
    namespace_of,
    resource_of,
    rules_of,
    shares_of,
    title_of,
)
from inference_plugin.splits import split_of
from inference_plugin.targets import ObjectPlan, Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_plugin.backends import Backend
    from inference_plugin.config import RouterConfig
    from inference_plugin.rollouts import Command
    from inference_plugin.targets import Target
    from inference_plugin.view import View

Object = dict[str, Any]
_ASK_AGAIN_S: Final = 0.5


def plan(command: Command, view: View, *, now: float, permissions: Permissions) -> Decision:
    """The next thing to do for a command, at the wall-clock time ``now`` (seconds).

    Raises ConfigError where a manifest is wrong, StaleError where a revision (then it is an
    UnknownRevisionError) or an Experiment's template is not known yet.
    """
    config = parse_config(command.spec.config)
    command = experiments.identified(command, view)
    if config.mode is DestinationMode.MODEL:
        return _plan_model(command, config, view, now, permissions)
    if config.mode is DestinationMode.SHARED_POOL:
        return _plan_shared_pool(command, config, view, now, permissions)
    return _plan_routes(command, config, view, now, permissions)


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
    target, more = experiments.backends(target, command, config, view)
    waits = (*waits, *more)
    held_back = without_stable(command, target.gate(target.stable))
    if held_back:
        return held_back
    rules = [_rules(route, target.required, command, config) for route in routes]
    plans = _route_plans(routes, rules, target, command, config, view, now)
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
    rules = [_rules(route, backends, command, config) for route in routes]
    shares = [
        shares_of(route, backends, managed) for route, managed in zip(routes, rules, strict=True)
    ]
    situation = destinations.pool_situation(
        command,
        view,
        pools=pools,
        shares=tuple(max(found[backend] for found in shares) for backend in backends),
        routed=_routed(routes, backends, command),
        accepted_for_s=None if None in accepted else min(at for at in accepted if at is not None),
        settle_s=config.settleSeconds,
    )
    step = advance(situation)
    if command.own and step.stable is not None:
        gate = destinations.pool_gate(view, pools[step.stable], settle_s=0.0)
        held_back = without_stable(command, gate)
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
            hold=new_home_hold(config, command) if promoted else None,
        )
    target = destinations.hash_addressed(
        view,
        step=step,
        pools=pools,
        backends=backends,
        maximum=command.weighting.maximum,
        settle_s=config.settleSeconds,
    )
    target, more = experiments.backends(target, command, config, view)
    waits = (*waits, *more)
    plans = _route_plans(routes, rules, target, command, config, view, now)
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
    target = experiments.adapters(target, command, view)
    held_back = without_stable(command, target.gate(target.stable))
    if held_back:
        return held_back
    plan_ = plan_model(split, target, context=context_of(command, config, view, now))
    # Nothing reports that a split was taken in: upstream's picker never writes a status, so that
    # reading it back is all the verification there is.
    return Decision(
        writes=(plan_.patch,) if plan_.patch else (),
        waits=(*waits, *plan_.waits),
        notes=plan_.notes,
        drifted=plan_.drifted,
        reached=plan_.patch is None and not plan_.waits,
    )


def _plan_shared_pool(
    command: Command, config: RouterConfig, view: View, now: float, permissions: Permissions
) -> Decision:
    [where] = managed_objects(command.spec, config, permissions, view)
    pool = read_object(view, *where)
    target = experiments.versions(destinations.versions(command, view, pool), command)
    held_back = without_stable(command, target.gate(target.stable))
    if held_back:
        return held_back
    context = context_of(command, config, view, now)
    plan_ = plan_pool_shares(where[0], pool, target, context=context)
    missing = ""
    waits = plan_.waits
    if plan_.patch is None:
        pickers = picker_pods(view, pool)
        missing = unacknowledged(pool, pickers, view.acknowledged(pool, pickers, config.pickerPort))
    if missing:
        wait = Wait(reason=WaitReason.PICKER, message=missing, retry_s=_ASK_AGAIN_S, quiet=True)
        waits = (*waits, wait)
    return Decision(
        writes=(plan_.patch,) if plan_.patch else (),
        waits=waits,
        drifted=plan_.drifted,
        reached=plan_.patch is None and not plan_.waits,
        unaccepted=missing,
    )


def _route_plans(
    routes: Sequence[Object],
    rules: Sequence[Sequence[int]],
    target: Target[Backend],
    command: Command,
    config: RouterConfig,
    view: View,
    now: float,
) -> list[ObjectPlan]:
    context = context_of(command, config, view, now)
    return [
        plan_route(route, target, context=context, rules=managed)
        for route, managed in zip(routes, rules, strict=True)
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
    hold, expired = (None, ()) if writes else hold_of(command, config, view, now, routes, plans)
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


def _routed(
    routes: Sequence[Object], backends: Sequence[Backend], command: Command
) -> tuple[bool, ...]:
    """For each pool whether a rule that was made for a managed route sends there."""
    items: set[str] = set()
    for route in routes:
        entry = commanded.read(route, str(command.spec.key))
        ours = {made.name for made in entry.made} if entry else set()
        rules = [rule for rule in rules_of(route) if rule.get("name") in ours]
        items |= sent_to(rules, namespace_of(route))
    return tuple(item_of(backend) in items for backend in backends)
