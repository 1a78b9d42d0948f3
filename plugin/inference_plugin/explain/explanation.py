"""Everything that the server would weigh for one Rollout now, as plain values.

The decision is made by the server's own ``planning.plan`` on its own view of the cluster, and not
carried out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEPOOL, INFERENCEPOOL_X
from inference_common.pools import hash_of
from inference_common.revisions import revision_of
from inference_plugin import commanded
from inference_plugin.carriers import managed_objects
from inference_plugin.config import parse_config
from inference_plugin.errors import ConfigError, PluginError
from inference_plugin.explain.weights import patched, weights_on
from inference_plugin.explain.wishes import wish_of
from inference_plugin.managed import drift_of
from inference_plugin.patches import ObjectPatch
from inference_plugin.planning import plan
from inference_plugin.rollouts import hashes_of, key_of, spec_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_common.kube import Resource
    from inference_plugin.carriers import Permissions
    from inference_plugin.commanded import Commanded
    from inference_plugin.config import RouterConfig
    from inference_plugin.decisions import Decision
    from inference_plugin.patches import Write
    from inference_plugin.rollouts import Command, RolloutSpec
    from inference_plugin.shares import Hashes
    from inference_plugin.view import View

Object = dict[str, Any]
NOT_YET: Final = "no revision has been available yet: nothing is written before the first one is"
"""The problem of a Rollout that is only just being deployed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionFacts:
    """One of the two revisions: its pods, and where its share goes ('' where that is not known)."""

    role: str
    pod_template_hash: str
    replica_set: str
    replicas: int
    ready: int
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFacts:
    """One backend or target of one list: weights that stand there, were commanded, would be.

    ``found`` is None where it is absent or has no weight; ``then`` is what this plan writes.
    """

    object: str
    place: str
    item: str
    found: int | None
    commanded: int | None
    then: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFacts:
    """One write, exactly as it would be sent: the JSON Patch, or the body of the apply."""

    object: str
    kind: str
    summary: str
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The whole answer. ``problem`` is why nothing is planned at all, '' where all is well."""

    rollout: str
    phase: str
    desired: int | None
    maximum: int
    source: str
    revisions: tuple[RevisionFacts, ...]
    weights: tuple[WeightFacts, ...]
    drift: tuple[str, ...]
    writes: tuple[WriteFacts, ...]
    awaited: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    verified: bool
    problem: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing is to be written and nothing is awaited."""
        return self.verified and not self.writes and not self.awaited and not self.problem

    def as_json(self) -> Object:
        """The answer with plain values."""
        return asdict(self)


def explain(
    rollout: Object,
    view: View,
    *,
    available: Callable[[str], int],
    now: float,
    permissions: Permissions,
) -> Explanation | None:
    """What would happen to the Rollout now; None where this plugin does not route it.

    ``available`` gives the available pods of a revision by its hash, ``now`` is in seconds since
    the epoch.
    """
    spec = spec_of(rollout)
    if spec is None:
        return None
    status = rollout.get("status") or {}
    nothing = Explanation(
        rollout=str(key_of(rollout)),
        phase=str(status.get("phase") or "not reconciled yet"),
        desired=None,
        maximum=spec.max_weight,
        source="",
        revisions=(),
        weights=(),
        drift=(),
        writes=(),
        awaited=(),
        notes=(),
        verified=False,
    )
    hashes = hashes_of(rollout, available)
    if hashes is None:
        return _with(nothing, problem=NOT_YET)
    try:
        config = parse_config(spec.config)
        return _explained(nothing, rollout, spec, config, hashes, view, available, now, permissions)
    except PluginError as error:
        return _with(nothing, problem=str(error))


def _explained(
    nothing: Explanation,
    rollout: Object,
    spec: RolloutSpec,
    config: RouterConfig,
    hashes: Hashes,
    view: View,
    available: Callable[[str], int],
    now: float,
    permissions: Permissions,
) -> Explanation:
    objects = [
        (where, obj)
        for where in managed_objects(spec, config, permissions, view)
        if (obj := view.get(*where)) is not None
    ]
    entries = {
        where: entry
        for where, obj in objects
        if (entry := commanded.read(obj, str(spec.key))) and entry.uid == spec.uid
    }
    wish = wish_of(
        rollout,
        spec,
        hashes,
        list(entries.values()),
        canary_available=available(hashes.canary),
    )
    known = _with(
        nothing,
        desired=wish.command.weighting.desired,
        source=wish.source,
        revisions=_revisions(wish.command, config, view),
        drift=tuple(
            f"{where[0].kind} {where[1]}/{where[2]}: {text}"
            for where, obj in objects
            if where in entries and (text := drift_of(where[0], obj, entries[where], config))
        ),
    )
    try:
        decision = plan(wish.command, view, now=now, permissions=permissions)
    except PluginError as error:
        return _with(
            known, problem=str(error), weights=_weights(objects, entries, config, writes=())
        )
    return _with(
        known,
        weights=_weights(objects, entries, config, writes=decision.writes),
        writes=tuple(_write(write) for write in decision.writes),
        awaited=_awaited(decision),
        notes=decision.notes,
        verified=decision.verified,
    )


def _revisions(command: Command, config: RouterConfig, view: View) -> tuple[RevisionFacts, ...]:
    roles = {"stable": command.hashes.stable, "canary": command.hashes.canary}
    if command.hashes.stable == command.hashes.canary:
        del roles["canary"]
    namespace = command.spec.key.namespace
    found = []
    for role, pod_template_hash in roles.items():
        revision = revision_of(
            command.spec.uid, pod_template_hash, view.replica_sets(namespace, pod_template_hash)
        )
        destination = revision.destination if revision else None
        found.append(
            RevisionFacts(
                role=role,
                pod_template_hash=pod_template_hash,
                replica_set=revision.replica_set if revision else "",
                replicas=revision.replicas if revision else 0,
                ready=revision.ready_replicas if revision else 0,
                destination=destination or _home(role, pod_template_hash, command, config, view),
            )
        )
    return tuple(found)


def _home(
    role: str, pod_template_hash: str, command: Command, config: RouterConfig, view: View
) -> str:
    """Where the revision's share goes if its pod template does not say it."""
    namespace = command.spec.key.namespace
    if config.inferencePools:
        resource = INFERENCEPOOL if config.poolGroup == INFERENCEPOOL.group else INFERENCEPOOL_X
        for name in config.inferencePools:
            pool = view.get(resource, namespace, name)
            if pool is not None and hash_of(pool) == pod_template_hash:
                return f"InferencePool {name}"
        return ""
    if config.sharedPool:
        return f"version {pod_template_hash} of InferencePool {config.sharedPool}"
    if config.static:
        return f"{config.static.kind} {getattr(config.static, role)}"
    service = command.spec.stable_service if role == "stable" else command.spec.canary_service
    return f"Service {service}" if service else ""


def _weights(
    objects: list[tuple[tuple[Resource, str, str], Object]],
    entries: dict[tuple[Resource, str, str], Commanded],
    config: RouterConfig,
    *,
    writes: tuple[Write, ...],
) -> tuple[WeightFacts, ...]:
    patches = {
        (write.resource, write.namespace, write.name): write.operations
        for write in writes
        if isinstance(write, ObjectPatch)
    }
    rows = []
    for where, obj in objects:
        try:
            found = weights_on(where[0], obj, config)
            then = weights_on(where[0], patched(obj, patches.get(where, ())), config)
        except ConfigError:
            continue
        placed = entries[where].placed if where in entries else ()
        told = {(each.place, each.item): each.weight for each in placed}
        rows += [
            WeightFacts(
                object=f"{where[0].kind} {where[1]}/{where[2]}",
                place=place,
                item=item,
                found=found.get((place, item)),
                commanded=told.get((place, item)),
                then=then.get((place, item)),
            )
            for place, item in dict.fromkeys([*found, *told, *then])
        ]
    return tuple(rows)


def _write(write: Write) -> WriteFacts:
    patch = isinstance(write, ObjectPatch)
    return WriteFacts(
        object=f"{write.resource.kind} {write.namespace}/{write.name}",
        kind="JSON Patch" if patch else "server-side apply",
        summary=write.summary,
        body=list(write.operations) if isinstance(write, ObjectPatch) else write.body,
    )


def _awaited(decision: Decision) -> tuple[tuple[str, str], ...]:
    found = [(wait.reason.value, wait.message) for wait in decision.waits]
    if decision.hold:
        found.append((decision.hold.reason.value, decision.hold.message))
    if decision.unaccepted:
        found.append(("WaitingForGateway", decision.unaccepted))
    return tuple(dict.fromkeys(found))


def _with(explanation: Explanation, **changes: Any) -> Explanation:
    fields = {name: getattr(explanation, name) for name in Explanation.__slots__}
    return Explanation(**(fields | changes))
