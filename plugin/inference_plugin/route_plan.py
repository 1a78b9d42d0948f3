"""A route: from shares to a JSON Patch of exactly the managed weights."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inference_plugin import commanded, weighted
from inference_plugin.apportion import LIMIT
from inference_plugin.backends import Backend, backend_of, new_ref
from inference_plugin.errors import ConfigError
from inference_plugin.made_rules import (
    Source,
    arranged,
    make,
    not_kept,
    recorded,
    refuse,
    sent_to,
)
from inference_plugin.patches import ObjectPatch, guarded
from inference_plugin.route_drift import adopt, changes, differs, drift_of
from inference_plugin.routes import (
    item_of,
    namespace_of,
    place_of,
    resource_of,
    rules_of,
    title_of,
)
from inference_plugin.rule_plan import RulePlan, bare, plan_rule
from inference_plugin.targets import Context, ObjectPlan, Target, Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from inference_plugin.commanded import Commanded

Object = dict[str, Any]


def plan_route(
    route: Object,
    target: Target[Backend],
    *,
    context: Context,
    rules: Sequence[int],
) -> ObjectPlan:
    """The patch that gives the managed backends their shares in each of these rules.

    Laws: other backends keep their share and all else is untouched; the managed backends of a
    rule never have weight 0 in all; a second plan on the patched object is empty.
    """
    entry = commanded.read(route, context.rollout)
    current = entry if entry and entry.uid == context.uid else None
    _refuse_claimed(route, target, rules, context)
    drifted = current is not None and differs(route, current)
    if current is not None and context.repeats(current, target.maximum):
        if not drifted and current.adopted:
            return ObjectPlan(patch=None, entry=entry, waits=())
        patch = adopt(route, current) if drifted and context.adopt_drift else None
        if patch is not None:
            return ObjectPlan(patch=patch, entry=entry, waits=(), drifted=True)
    gates: dict[Backend, Wait | None] = {}
    plans = [plan_rule(route, index, target, context, current, gates) for index in rules]
    made = _made(route, plans, target, entry, context, gates)
    waits = [wait for wait in gates.values() if wait]
    same = current is not None and _says_the_same(current, target, context)
    if drifted and context.report_drift and current and same:
        waits.append(
            Wait(
                reason=WaitReason.DRIFT,
                message=f"{title_of(route)}: weights differ from what was commanded "
                f"({drift_of(route, current)}); drift is only reported.",
            )
        )
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits), drifted=True)
    placed = tuple(item for plan in plans for item in plan.placed)
    changed = [plan for plan in plans if plan.changed]
    refs = {plan.index: list(plan.after) for plan in changed}
    ours = {item.name for item in entry.made} if entry else set()
    wanted = [rule for _, rule in made]
    rules_after = arranged(route, refs, wanted, ours)
    same_made = current is not None and current.made == recorded(made)
    same_made = same_made and rules_after is None and not changed
    if same_made and current is not None and set(current.placed) == set(placed):
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits))
    drained = _drained(route, plans, wanted, ours, target)
    homes = {item_of(backend) for backend in target.homes}
    keeps = current is not None and not changed and rules_after is None
    new = replace(
        context.entry(maximum=target.maximum, home=item_of(target.stable), placed=placed),
        drained=current.drained if keeps and current else drained,
        gone=current.gone
        if keeps and current
        else tuple(item for item in drained if item not in homes),
        since=current.since if keeps and current else context.now,
        removed=tuple(pair for plan in plans for pair in plan.removed),
        made=recorded(made),
        added=tuple(pair for plan in plans for pair in plan.added),
    )
    operations = changes(route, refs, rules_after)
    patch = ObjectPatch(
        resource=resource_of(route),
        namespace=namespace_of(route),
        name=route["metadata"]["name"],
        operations=guarded(route, operations, commanded.annotation_value(route, new)),
        summary=f"{title_of(route)}: " + (_summary(changed, ours, wanted) or "taken over as it is"),
        check=None
        if all(rule["name"] in ours for rule in wanted)
        else functools.partial(not_kept, wanted),
    )
    notes = tuple(
        f"{title_of(route)} rule {plan.place}: no weights up to {LIMIT} hold the split "
        "exactly; it was rounded."
        for plan in changed
        if not plan.exact
    )
    return ObjectPlan(patch=patch, entry=entry, waits=tuple(waits), notes=notes, drifted=drifted)


def _made(
    route: Object,
    plans: Sequence[RulePlan],
    target: Target[Backend],
    entry: Commanded | None,
    context: Context,
    gates: dict[Backend, Wait | None],
) -> list[tuple[str, Object]]:
    """The rules to be had for managed routes; new ones only once the canary can take requests."""
    canary = target.canary
    if canary is None or not context.wished:
        return []
    namespace = namespace_of(route)
    sources = [
        Source(
            rule=rules_of(route)[plan.index],
            refs=plan.after,
            canary=_canary_ref(plan, canary, namespace),
        )
        for plan in plans
    ]
    made = make(route, sources, context.wished)
    refuse(route, [rule for _, rule in made], entry, context.rollout)
    live = {item.name for item in entry.made} if entry else set()
    if any(rule["name"] not in live for _, rule in made):
        if canary not in gates:
            gates[canary] = target.gate(canary)
        if gates[canary] is not None:
            return [pair for pair in made if pair[1]["name"] in live]
    return made


def _canary_ref(plan: RulePlan, canary: Backend, namespace: str) -> Object:
    """The canary's backendRef in a rule, as it is, was, or would be added; without a weight."""
    spare = [json.loads(text) for _, text in plan.removed]
    for ref in (*plan.after, *plan.before, *spare):
        if backend_of(ref, namespace) == canary:
            return bare(ref)
    return new_ref(canary, namespace, plan.before[0] if plan.before else None)


def _drained(
    route: Object,
    plans: Sequence[RulePlan],
    wanted: Sequence[Object],
    ours: Collection[str],
    target: Target[Backend],
) -> tuple[str, ...]:
    """Items that something was sent to until now and nothing is any more."""
    namespace = namespace_of(route)
    before = [rule for rule in rules_of(route) if rule.get("name") in ours]
    lost = {item_of(backend) for plan in plans for backend in plan.drained}
    lost |= sent_to(before, namespace)
    lost -= sent_to([*({"backendRefs": plan.after} for plan in plans), *wanted], namespace)
    return tuple(sorted(lost - {item_of(backend) for backend in target.untied}))


def _refuse_claimed(
    route: Object, target: Target[Backend], rules: Sequence[int], context: Context
) -> None:
    places = {place_of(route, index) for index in rules}
    items = {item_of(backend) for backend in target.shares}
    for name, entry in commanded.read_all(route).items():
        if name == context.rollout:
            continue
        shared = {placed.item for placed in entry.placed if placed.place in places} & items
        if shared and context.owner_lives(name, entry.uid):
            raise ConfigError(
                f"{title_of(route)}: {', '.join(sorted(shared))} is managed by Rollout "
                f"{name}. Give each Rollout its own rule or its own backends."
            )


def _says_the_same(entry: Commanded, target: Target[Backend], context: Context) -> bool:
    """Whether the target asks for what was commanded already."""
    if entry.beside != context.beside:
        return False
    wanted = weighted.Wanted(
        shares={item_of(backend): share for backend, share in target.shares.items()},
        maximum=target.maximum,
        stable=item_of(target.stable),
    )
    return all(
        not weighted.resplit(
            [
                weighted.Entry(item=placed.item, weight=placed.weight, managed=True)
                for placed in entry.placed
                if placed.place == place
            ],
            wanted,
        ).changed
        for place in entry.places
    )


def _summary(plans: Sequence[RulePlan], ours: Collection[str], wanted: Sequence[Object]) -> str:
    names = [str(rule["name"]) for rule in wanted]
    parts = [f"rule {name} made" for name in names if name not in ours]
    parts += [f"rule {name} taken away" for name in sorted(ours) if name not in names]
    for plan in plans:
        old = {item["name"]: item.get("weight", 1) for item in plan.before}
        new = {item["name"]: item.get("weight", 1) for item in plan.after}
        moved = [
            f"{name} {old.get(name, 'absent')} to {new.get(name, 'absent')}"
            for name in [*old, *(name for name in new if name not in old)]
            if old.get(name) != new.get(name)
        ]
        parts.append(f"rule {plan.place}: {', '.join(moved)}")
    return "; ".join(parts)
