"""Shares inside one InferencePool: an annotation that the pool's endpoint pickers enforce.

The weights of the versions stand on the pool itself, so that no second pool and no second picker
is needed, and no gateway has to divide anything. What the annotation says is defined in
``inference_common.shares``. It fails closed: pools whose gateway may go around the picker are
refused, and a share counts as reached only once every ready picker has acknowledged it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inference_common.kube import SERVICE
from inference_common.names import HASH_LABEL, SHARES_ANNOTATION
from inference_common.pods import is_ready
from inference_common.pools import picker_ref, picker_service, selector_of
from inference_common.shares import PoolShares, SharesError, decode, digest, encode
from inference_plugin import commanded, weighted
from inference_plugin.commanded import Commanded, Placed
from inference_plugin.errors import ConfigError
from inference_plugin.patches import ObjectPatch, Operation, guarded, pointer
from inference_plugin.pools import title_of
from inference_plugin.readiness import live_pods, pool_wait, ready_pods
from inference_plugin.targets import Context, ObjectPlan, Target, Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_common.kube import Resource
    from inference_plugin.view import View

Object = dict[str, Any]
_PATH = pointer("metadata", "annotations", SHARES_ANNOTATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What one picker says it holds for a pool; ``problem`` is why it could not be asked."""

    digest: str = ""
    state: str = ""
    problem: str = ""


def plan_pool_shares(
    resource: Resource, pool: Object, target: Target[str], *, context: Context
) -> ObjectPlan:
    """The patch that puts the versions' shares on the pool.

    Raises ConfigError where the pool's picker can't be relied on, or another Rollout commands it.
    """
    _refuse_open(pool)
    _refuse_claimed(pool, context)
    entry = commanded.read(pool, context.rollout)
    current = entry if entry and entry.uid == context.uid else None
    drift = drift_of(pool, current) if current else ""
    asked_again = current is not None and context.repeats(current, target.maximum)
    if current is not None and asked_again:
        if current.adopted and not drift:
            return ObjectPlan(patch=None, entry=entry, waits=())
        patch = adopt(resource, pool, current) if drift and context.adopt_drift else None
        if patch is not None:
            return ObjectPlan(patch=patch, entry=entry, waits=(), drifted=True)
    entries = _entries(pool, current)
    wanted = weighted.Wanted(shares=target.shares, maximum=target.maximum, stable=target.stable)
    gates = {name: target.gate(name) for name in weighted.raised(entries, wanted)}
    waits = [wait for wait in gates.values() if wait]
    blocked = {name for name, wait in gates.items() if wait}
    split = weighted.resplit(entries, replace(wanted, blocked=blocked))
    if drift and context.report_drift and asked_again:
        message = f"{title_of(pool)}: its shares differ from what was commanded ({drift}); drift "
        waits.append(Wait(reason=WaitReason.DRIFT, message=f"{message}is only reported."))
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits), drifted=True)
    placed = tuple(
        Placed(place="", item=version, weight=weight)
        for version, weight in sorted(split.managed.items())
        if weight or version in target.homes
    )
    live = _live(pool)
    said = live is not None and live.stable == target.stable and not split.changed
    if said and not drift and current is not None and current.placed == placed:
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits))
    new = context.entry(maximum=target.maximum, home=target.stable, placed=placed)
    return ObjectPlan(
        patch=_patch(resource, pool, new, now=context.now, summary=_summary(pool, new)),
        entry=entry,
        waits=tuple(waits),
        drifted=bool(drift),
    )


def version_gate(view: View, pool: Object, version: str) -> Wait | None:
    """Why a version must not be given more: none of its pods is ready, or no picker is."""
    namespace = pool["metadata"]["namespace"]
    selector = selector_of(pool) | {HASH_LABEL: version}
    if not ready_pods(view, namespace, selector):
        return Wait(
            reason=WaitReason.READY_PODS,
            message=f"{title_of(pool)}: none of the {live_pods(view, namespace, selector)} pods "
            f"of version {version} is ready.",
        )
    return pool_wait(view, pool)


def picker_pods(view: View, pool: Object) -> list[Object]:
    """The ready pods of the pool's endpoint picker."""
    name = picker_service(pool)
    namespace = pool["metadata"]["namespace"]
    service = view.get(SERVICE, namespace, name) if name else None
    selector = ((service or {}).get("spec") or {}).get("selector") or {}
    return [pod for pod in view.pods(namespace, selector) if is_ready(pod)]


def unacknowledged(
    pool: Object, pickers: Sequence[Object], known: Mapping[str, Acknowledgement]
) -> str:
    """The ready pickers that do not enforce what the pool says, in words; empty when all do.

    ``known`` is by the picker pod's name.
    """
    text = _text(pool)
    if text is None:
        return f"{title_of(pool)} has no annotation {SHARES_ANNOTATION}"
    if not pickers:
        return f"{title_of(pool)} has no ready endpoint picker"
    wanted = digest(text)
    missing = []
    for pod in pickers:
        name = pod["metadata"]["name"]
        found = known.get(name, Acknowledgement(problem="not asked yet"))
        if found.problem:
            missing.append(f"picker {name}: {found.problem}")
        elif (found.digest, found.state) != (wanted, "applied"):
            missing.append(f"picker {name}: {found.state or 'nothing'} {found.digest}".rstrip())
    return f"{title_of(pool)}: {wanted} is not enforced by {'; '.join(missing)}" if missing else ""


def drift_of(pool: Object, entry: Commanded) -> str:
    """What differs between the annotation and what was commanded, in words; empty if nothing."""
    text = _text(pool)
    if text is None:
        return f"the annotation {SHARES_ANNOTATION} is gone"
    try:
        live = decode(text)
    except SharesError as error:
        return f"the annotation {SHARES_ANNOTATION} is {error}"
    wanted = {placed.item: placed.weight for placed in entry.placed}
    found = {version: weight for version, weight in live.weights.items() if weight}
    differing = [
        f"{version}: {found.get(version, 0)}, commanded {wanted.get(version, 0)}"
        for version in sorted(found | wanted)
        if found.get(version, 0) != wanted.get(version, 0)
    ]
    for name, value, commanded_ in (
        ("uid", live.uid, entry.uid),
        ("stable", live.stable, entry.home),
    ):
        if value != commanded_ and not (name == "stable" and entry.adopted):
            differing.append(f"{name}: {value}, commanded {commanded_}")
    return "; ".join(differing)


def restore(resource: Resource, pool: Object, entry: Commanded) -> ObjectPatch | None:
    """The patch that puts the commanded shares back; None when nothing differs."""
    drift = drift_of(pool, entry)
    if not drift:
        return None
    # The write's own time is not known here; the counter rises from what stands there, and from
    # the last command's time where that is gone.
    return _patch(
        resource,
        pool,
        entry,
        now=entry.since + 1,
        summary=f"{title_of(pool)}: {drift}; put back",
        mark=False,
    )


def adopt(resource: Resource, pool: Object, entry: Commanded) -> ObjectPatch | None:
    """The patch that makes the shares as they stand the commanded ones; None if unreadable."""
    live = _live(pool)
    if live is None or live.uid != entry.uid:
        return None
    placed = tuple(
        Placed(place="", item=version, weight=weight)
        for version, weight in sorted(live.weights.items())
    )
    new = replace(entry, placed=placed, adopted=True)
    return ObjectPatch(
        resource=resource,
        namespace=pool["metadata"]["namespace"],
        name=pool["metadata"]["name"],
        operations=guarded(pool, [], commanded.annotation_value(pool, new)),
        summary=f"{title_of(pool)}: {drift_of(pool, entry)}; taken over until the next command",
    )


def removal(pool: Object) -> list[Operation]:
    """The changes that take the shares off the pool: every ready pod may be picked again."""
    text = _text(pool)
    if text is None:
        return []
    return [{"op": "test", "path": _PATH, "value": text}, {"op": "remove", "path": _PATH}]


def _patch(
    resource: Resource,
    pool: Object,
    entry: Commanded,
    *,
    now: float,
    summary: str,
    mark: bool = True,
) -> ObjectPatch:
    text = _text(pool)
    live = _live(pool)
    # Seconds where the last counter is not known: more of them have passed than writes were made.
    counter = max(int(now), live.counter + 1 if live is not None else 0)
    value = encode(
        PoolShares(
            rollout=entry.rollout,
            uid=entry.uid,
            counter=counter,
            stable=entry.home,
            weights={placed.item: placed.weight for placed in entry.placed},
        )
    )
    tests = [] if text is None else [{"op": "test", "path": _PATH, "value": text}]
    annotation = commanded.annotation_value(pool, entry) if mark else None
    operations = list(guarded(pool, tests, annotation))
    if not mark and pool["metadata"].get("annotations") is None:
        operations.append({"op": "add", "path": "/metadata/annotations", "value": {}})
    operations.append({"op": "add", "path": _PATH, "value": value})
    return ObjectPatch(
        resource=resource,
        namespace=pool["metadata"]["namespace"],
        name=pool["metadata"]["name"],
        operations=tuple(operations),
        summary=summary,
    )


def _summary(pool: Object, entry: Commanded) -> str:
    live = _live(pool)
    old = live.weights if live is not None else {}
    new = {placed.item: placed.weight for placed in entry.placed}
    moved = ", ".join(
        f"{version} {old.get(version, 'absent')} to {new.get(version, 0)}"
        for version in sorted({*old, *new})
        if old.get(version) != new.get(version, 0)
    )
    return f"{title_of(pool)}: {moved or f'stable is {entry.home}'}"


def _entries(pool: Object, current: Commanded | None) -> list[weighted.Entry]:
    """The shares that are in force: as they stand, else as they were commanded last.

    A picker keeps what it had when the annotation is gone, so that what was commanded is the best
    word there is about what versions are given now.
    """
    live = _live(pool)
    if live is not None:
        weights = dict(live.weights)
    else:
        weights = {placed.item: placed.weight for placed in (current.placed if current else ())}
    return [
        weighted.Entry(item=version, weight=weight, managed=True)
        for version, weight in weights.items()
    ]


def _live(pool: Object) -> PoolShares | None:
    text = _text(pool)
    try:
        return decode(text) if text is not None else None
    except SharesError:
        return None


def _text(pool: Object) -> str | None:
    found: str | None = (pool["metadata"].get("annotations") or {}).get(SHARES_ANNOTATION)
    return found


def _refuse_open(pool: Object) -> None:
    ref = picker_ref(pool)
    if ref is None:
        raise ConfigError(
            f"{title_of(pool)} has no endpoint picker (endpointPickerRef or extensionRef), which "
            "divides the requests between versions. Add one, or use inferencePools."
        )
    if ref.get("failureMode") == "FailOpen":
        raise ConfigError(
            f"{title_of(pool)}: failureMode is FailOpen, so that the gateway may send requests to "
            "any version when the picker does not answer. Set it to FailClose."
        )


def _refuse_claimed(pool: Object, context: Context) -> None:
    for name, entry in commanded.read_all(pool).items():
        if name != context.rollout and context.owner_lives(name, entry.uid):
            raise ConfigError(
                f"{title_of(pool)} is managed by Rollout {name}. Give each Rollout its own pool."
            )
