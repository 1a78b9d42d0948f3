"""The kinds of destinations: what shares per revision mean for the objects that carry them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from inference_common.kube import ROLLOUT, SERVICE
from inference_common.names import DESTINATION_ANNOTATION, HASH_LABEL, IDENTITY_ANNOTATION
from inference_common.pools import hash_of
from inference_common.revisions import Revision, revision_of
from inference_plugin import commanded
from inference_plugin.backends import Backend, backend_of, backend_of_item
from inference_plugin.errors import ConfigError, StaleError
from inference_plugin.hash_pools import PoolState, Situation, Step
from inference_plugin.pool_shares import version_gate
from inference_plugin.pools import base_selector, is_ours, title_of
from inference_plugin.readiness import pod_count, pool_wait, service_wait
from inference_plugin.rollouts import ping_pong
from inference_plugin.routes import namespace_of, rules_of
from inference_plugin.shares import shares_by_hash
from inference_plugin.targets import Target, Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from inference_common.kube import Resource
    from inference_plugin.config import RouterConfig
    from inference_plugin.rollouts import Command
    from inference_plugin.splits import ModelSplit
    from inference_plugin.view import View

Object = dict[str, Any]
Item = TypeVar("Item")


class UnknownRevisionError(StaleError):
    """No ReplicaSet of the Rollout with that pod-template-hash is known.

    A live read settles whether it does not exist or the watch has not told yet.
    """

    def __init__(self, namespace: str, pod_template_hash: str) -> None:
        """Say which revision is missing."""
        self.namespace = namespace
        self.pod_template_hash = pod_template_hash
        super().__init__(
            f"No ReplicaSet of the Rollout with {HASH_LABEL}={pod_template_hash} exists in "
            f"{namespace}. It is read again with the next call."
        )


def static(command: Command, config: RouterConfig, view: View) -> Target[Backend]:
    """Fixed names: those of the configuration, else the Rollout's Services."""
    namespace = command.spec.key.namespace
    if config.static is not None:
        fixed = config.static
        default = config.poolGroup if fixed.kind == "InferencePool" else ""
        group = "" if fixed.kind == "Service" else (fixed.group or default)
        kind, names = fixed.kind, (fixed.stable, fixed.canary)
    else:
        group, kind = "", "Service"
        names = _services(command, view)
    stable, canary = (
        Backend(group=group, kind=kind, namespace=namespace, name=name) for name in names
    )
    return Target(
        shares={stable: command.weighting.stable, canary: command.weighting.desired},
        maximum=command.weighting.maximum,
        stable=stable,
        homes=frozenset({stable, canary}),
        required=frozenset({stable, canary}),
        gate=lambda backend: backend_gate(view, backend),
        canary=canary,
    )


def _services(command: Command, view: View) -> tuple[str, str]:
    """Names of the stable and the canary Service: the two fixed ones, else ping and pong."""
    fixed = (command.spec.stable_service, command.spec.canary_service)
    if all(fixed):
        return fixed
    key = command.spec.key
    rollout = view.get(ROLLOUT, key.namespace, key.name)
    in_turn = ping_pong(rollout) if rollout else None
    if in_turn is not None and not any(fixed):
        return in_turn
    raise ConfigError(
        "The configuration names no destinations, and spec.strategy.canary.stableService "
        f"is {fixed[0]!r}, canaryService {fixed[1]!r}, pingPong {in_turn}. Set the two Services, "
        "or pingPong, or one of inferencePools, destinationKind and static."
    )


def named(
    command: Command, config: RouterConfig, view: View
) -> tuple[Target[Backend], tuple[Wait, ...]]:
    """Backends named by the annotation of each revision's pod template.

    A canary whose name can't be had does not keep traffic from stable: with a desired weight of 0
    it is only reported.
    """
    kind = config.destinationKind or "InferencePool"
    group = "" if kind == "Service" else config.poolGroup
    namespace = command.spec.key.namespace

    def backend(name: str) -> Backend:
        return Backend(group=group, kind=kind, namespace=namespace, name=name)

    names, waits = _names(command, view)
    stable = backend(names[command.hashes.stable])
    for name in dict.fromkeys(names.values()):
        found = backend(name)
        if view.get(found.resource, namespace, name) is None and found != stable:
            problem = _absent(view, found)
            if command.weighting.desired:
                raise ConfigError(problem)
            waits = (*waits, _problem(problem))
            names = {key: value for key, value in names.items() if value != name}
    shares = _summed(command, {key: backend(name) for key, name in names.items()})
    homes = frozenset(shares)
    return Target(
        shares=shares,
        maximum=command.weighting.maximum,
        stable=stable,
        homes=homes,
        required=homes,
        gate=lambda item: backend_gate(view, item),
        canary=backend(names[canary]) if (canary := command.hashes.canary) in names else None,
    ), waits


def adapters(
    command: Command, view: View, split: ModelSplit
) -> tuple[Target[str], tuple[Wait, ...]]:
    """Targets of a model split named by the annotation of each revision's pod template.

    Whether the adapter is loaded is the prober's word: its pod is the revision's, and Argo
    Rollouts gives no weight to a revision without an available pod.
    """
    names, waits = _names(command, view)
    shares = _summed(command, names)
    return Target(
        shares=shares,
        maximum=command.weighting.maximum,
        stable=names[command.hashes.stable],
        homes=frozenset(shares),
        required=frozenset(shares),
        gate=lambda _: _model_gate(view, split),
    ), waits


def versions(command: Command, view: View, pool: Object) -> Target[str]:
    """The pod-template-hashes themselves: versions of one pool's pods."""
    homes = frozenset({command.hashes.stable, command.hashes.canary})
    return Target(
        shares=shares_by_hash(command.hashes, command.weighting),
        maximum=command.weighting.maximum,
        stable=command.hashes.stable,
        homes=homes,
        required=homes,
        gate=lambda version: version_gate(view, pool, version),
    )


def pool_backends(pools: Sequence[Object], resource: Resource) -> list[Backend]:
    """The pools as backends of a route, in order."""
    return [
        Backend(
            group=resource.group,
            kind=resource.kind,
            namespace=pool["metadata"]["namespace"],
            name=pool["metadata"]["name"],
        )
        for pool in pools
    ]


def retired_pools(
    command: Command, view: View, routes: Sequence[Object], backends: Sequence[Backend]
) -> list[tuple[Resource, Object]]:
    """Pools that the configuration no longer names, have no weight left, and are still aimed."""
    found = []
    for route in routes:
        entry = commanded.read(route, str(command.spec.key))
        if entry is None or entry.uid != command.spec.uid:
            continue
        weighty = {
            backend_of(ref, namespace_of(route))
            for rule in rules_of(route)
            for ref in rule.get("backendRefs") or []
            if ref.get("weight", 1)
        }
        for item in sorted(entry.items):
            backend = backend_of_item(item)
            if backend is None or backend in weighty or backend in backends:
                continue
            if backend.kind != "InferencePool":
                continue
            pool = view.get(backend.resource, backend.namespace, backend.name)
            if pool is not None and is_ours(pool):
                found.append((backend.resource, pool))
    return found


def pool_situation(
    command: Command,
    view: View,
    *,
    pools: Sequence[Object],
    shares: Sequence[Fraction],
    routed: Sequence[bool],
    accepted_for_s: float | None,
    settle_s: float,
) -> Situation:
    """The situation of two hash-addressed pools."""
    first, second = (
        _pool_state(command, view, pool, share, routed=here)
        for pool, share, here in zip(pools, shares, routed, strict=True)
    )
    return Situation(
        pools=(first, second),
        hashes=command.hashes,
        desired=command.weighting.desired,
        maximum=command.weighting.maximum,
        accepted_for_s=accepted_for_s,
        settle_s=settle_s,
    )


def hash_addressed(
    view: View,
    *,
    step: Step,
    pools: Sequence[Object],
    backends: Sequence[Backend],
    maximum: int,
    settle_s: float,
) -> Target[Backend]:
    """The shares of a step as a target; ``step.shares`` must be set."""
    shares = dict(zip(backends, step.shares or (), strict=True))
    by_backend = dict(zip(backends, pools, strict=True))
    stable = (
        max(backends, key=lambda item: shares[item])
        if step.stable is None
        else (backends[step.stable])
    )
    homes = {backends[at] for at in (step.stable, step.canary) if at is not None}
    return Target(
        shares=shares,
        maximum=maximum,
        stable=stable,
        homes=frozenset(homes),
        required=frozenset(backends),
        gate=lambda backend: pool_gate(view, by_backend[backend], settle_s=settle_s),
        untied=frozenset(backend for backend, pool in by_backend.items() if hash_of(pool) is None),
        canary=None if step.canary in {None, step.stable} else backends[step.canary or 0],
    )


def pool_gate(view: View, pool: Object, *, settle_s: float) -> Wait | None:
    """Why an InferencePool must not be given more traffic; a fresh selector must settle too."""
    wait = pool_wait(view, pool)
    if wait is not None:
        return wait
    aimed_for_s = view.aimed_for_s(pool)
    if aimed_for_s < settle_s:
        return Wait(
            reason=WaitReason.SETTLE,
            message=f"{title_of(pool)} was aimed {aimed_for_s:.1f} s ago.",
            retry_s=settle_s - aimed_for_s,
            quiet=True,
        )
    return None


def backend_gate(view: View, backend: Backend) -> Wait | None:
    """Why a backend must not be given more traffic."""
    if backend.resource == SERVICE:
        return service_wait(view, backend.namespace, backend.name)
    pool = view.get(backend.resource, backend.namespace, backend.name)
    if pool is None:
        return _problem(_absent(view, backend))
    return pool_wait(view, pool)


def _names(command: Command, view: View) -> tuple[dict[str, str], tuple[Wait, ...]]:
    """Destination name by hash; a canary at weight 0 without one is left out and reported."""
    stable = _revision(command, view, command.hashes.stable)
    names = {command.hashes.stable: _name(command, stable)}
    if command.hashes.canary == command.hashes.stable:
        return names, ()
    try:
        canary = _revision(command, view, command.hashes.canary)
        names[command.hashes.canary] = _name(command, canary)
        _refuse_ambiguous(stable, canary)
    except UnknownRevisionError:
        if command.weighting.desired:
            raise
        return names, ()
    except ConfigError as error:
        if command.weighting.desired:
            raise
        return {command.hashes.stable: names[command.hashes.stable]}, (_problem(str(error)),)
    return names, ()


def _revision(command: Command, view: View, pod_template_hash: str) -> Revision:
    namespace = command.spec.key.namespace
    sets = view.replica_sets(namespace, pod_template_hash)
    found = revision_of(command.spec.uid, pod_template_hash, sets)
    if found is None:
        raise UnknownRevisionError(namespace, pod_template_hash)
    return found


def _name(command: Command, revision: Revision) -> str:
    if not revision.destination:
        raise ConfigError(
            f"ReplicaSet {command.spec.key.namespace}/{revision.replica_set} does not say what its "
            f"revision stands for: its pod template has no annotation {DESTINATION_ANNOTATION}. "
            "Add it under spec.template.metadata.annotations of the Rollout."
        )
    return revision.destination


def _refuse_ambiguous(stable: Revision, canary: Revision) -> None:
    """Two revisions must not mean different contents of one destination (plugin-walk, 10)."""
    if stable.destination == canary.destination and stable.identity != canary.identity:
        raise ConfigError(
            f"Both revisions name the destination {stable.destination!r}, but with different "
            f"{IDENTITY_ANNOTATION} ({stable.identity!r} and {canary.identity!r}): its pods can't "
            "be both. Give the new revision a destination of its own."
        )


def _summed(command: Command, items: dict[str, Item]) -> dict[Item, int]:
    """Share per destination; revisions of the same destination are added up."""
    shares: dict[Item, int] = {}
    for pod_template_hash, share in shares_by_hash(command.hashes, command.weighting).items():
        if pod_template_hash in items:
            item = items[pod_template_hash]
            shares[item] = shares.get(item, 0) + share
    return shares


def _pool_state(
    command: Command, view: View, pool: Object, share: Fraction, *, routed: bool
) -> PoolState:
    namespace = pool["metadata"]["namespace"]
    base = base_selector(pool)
    aimed_at = hash_of(pool)
    wanted = {command.hashes.stable, command.hashes.canary} | ({aimed_at} if aimed_at else set())
    counts = {}
    for pod_template_hash in wanted:
        selector = base | {HASH_LABEL: pod_template_hash}
        counts[pod_template_hash] = pod_count(view, namespace, selector)
    return PoolState(
        name=f"{namespace}/{pool['metadata']['name']}",
        aimed_at=aimed_at,
        share=share,
        pods=counts,
        aimed_for_s=view.aimed_for_s(pool),
        routed=routed,
    )


def _model_gate(view: View, split: ModelSplit) -> Wait | None:
    resource = split.pool_resource
    if resource is None:
        return None
    return backend_gate(
        view,
        Backend(
            group=resource.group,
            kind=resource.kind,
            namespace=split.obj["metadata"]["namespace"],
            name=str(split.obj["spec"]["poolRef"].get("name", "")),
        ),
    )


def _absent(view: View, backend: Backend) -> str:
    names = ", ".join(sorted(view.names(backend.resource, backend.namespace))) or "none"
    return (
        f"{backend} ({backend.resource.api_version}) does not exist (found in "
        f"{backend.namespace}: {names}). Create it, or correct the name."
    )


def _problem(message: str) -> Wait:
    return Wait(reason=WaitReason.DESTINATION, message=message)
