"""Names that lead somewhere: from the Rollout to routes, pools and models, and from those on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import GATEWAY, INFERENCEPOOL, INFERENCEPOOL_X, SERVICE
from inference_common.names import DESTINATION_ANNOTATION
from inference_common.pools import picker_ref
from inference_plugin.config import DestinationMode
from inference_plugin.errors import ConfigError
from inference_plugin.lint.findings import Finding, Severity, finding
from inference_plugin.lint.subject import CONFIG
from inference_plugin.routes import ROUTES, managed_rules
from inference_plugin.splits import split_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference_plugin.lint.documents import Document
    from inference_plugin.lint.subject import Inventory, Subject

Object = dict[str, Any]
_POOLS: Final = (
    (INFERENCEPOOL.group, INFERENCEPOOL.kind),
    (INFERENCEPOOL_X.group, "InferencePool"),
)


def missing(
    inventory: Inventory,
    document: Document,
    place: tuple[str | int, ...],
    *,
    group: str,
    kind: str,
    namespace: str,
    name: str,
) -> Iterator[Finding]:
    """A name that no given object has.

    An error where others of the kind are given, because then it is most likely a slip of the pen;
    else a warning, because the object may be on the cluster already.
    """
    if inventory.get(group, kind, namespace, name) is not None:
        return
    others = inventory.names(group, kind, namespace)
    yield finding(
        Severity.ERROR if others else Severity.WARNING,
        "reference",
        document,
        *place,
        what=f"{kind}{f'.{group}' if group else ''} {namespace}/{name} is not among the files",
        why=f"given there: {', '.join(others)}"
        if others
        else "whether it is right can't be seen without it",
        remedy="correct the name" if others else f"give the {kind}'s manifest to lint as well",
    )


def of_rollout(subject: Subject) -> Iterator[Finding]:
    """What the configuration names, and whether routes and models are fit to carry the weights."""
    document, inventory = subject.document, subject.inventory
    if (
        subject.config.mode in {DestinationMode.NAMED, DestinationMode.MODEL}
        and subject.template
        and not subject.destination
    ):
        holder, at, _ = subject.template
        yield finding(
            Severity.ERROR,
            "destination",
            holder,
            *at,
            "metadata",
            what=f"the pod template has no annotation {DESTINATION_ANNOTATION}",
            why="nothing says which pool, Service or adapter this revision stands for",
            remedy="add it under template.metadata.annotations",
        )
    for backend, place in subject.backends():
        named = subject.config.mode is DestinationMode.NAMED
        holder = subject.template[0] if named and subject.template else document
        yield from missing(
            inventory,
            holder,
            place,
            group=backend.group,
            kind=backend.kind,
            namespace=backend.namespace,
            name=backend.name,
        )
    for resource, name, place in subject.carriers():
        where = subject.object_namespace
        found = inventory.of(resource, where, name)
        if found is None:
            yield from missing(
                inventory,
                document,
                place,
                group=resource.group,
                kind=resource.kind,
                namespace=where,
                name=name,
            )
        elif resource.kind in ROUTES:
            yield from _route(subject, found)
        elif not subject.config.sharedPool:
            yield from _split(subject, found)


def _route(subject: Subject, route: Document) -> Iterator[Finding]:
    if not (route.obj.get("spec") or {}).get("parentRefs"):
        yield finding(
            Severity.ERROR,
            "parent",
            route,
            "spec",
            what="the route has no parentRefs",
            why="no gateway ever accepts it, so that no step is verified",
            remedy="add the Gateway under spec.parentRefs",
        )
    required = {backend for backend, _ in subject.backends()}
    if not required:
        return
    names = [
        config.rules
        for kind, config in subject.config.routes
        if (kind, config.name) == (route.kind, route.name)
    ]
    try:
        managed_rules(
            route.obj,
            required=required,
            names=names[0] if names else (),
            entry=None,
            may_add=subject.config.mode is DestinationMode.NAMED,
        )
    except ConfigError as error:
        yield finding(
            Severity.ERROR,
            "backend-refs",
            route,
            *("spec", "rules"),
            what=str(error),
            why="the plugin finds no rule to set weights in and refuses each step",
            remedy=f"name the backends of {subject.document.title} in one rule, or name the rule "
            "in the configuration",
        )


def _split(subject: Subject, model: Document) -> Iterator[Finding]:
    [(resource, _, place)] = subject.carriers()
    try:
        split = split_of(model.obj, resource, subject.config)
    except ConfigError as error:
        yield finding(
            Severity.ERROR,
            "model-split",
            subject.document,
            *place,
            what=str(error),
            why="the plugin finds no list to set weights in and refuses each step",
            remedy=f"correct it under {CONFIG[-1]}",
        )
        return
    target = subject.destination
    if target and split.names and target not in split.names:
        yield finding(
            Severity.ADVICE,
            "model-split",
            model,
            *split.path,
            what=f"no target of {split.field} is {target!r}, which the Rollout's revision stands "
            f"for (found {', '.join(split.names)})",
            why="until the first revision is available the other targets answer",
            remedy="name the first release's adapter as the only target",
        )


def of_objects(inventory: Inventory) -> Iterator[Finding]:
    """Routes to Gateways, pools to pickers, models to pools."""
    for document in inventory:
        if document.kind in ROUTES and document.group == GATEWAY.group:
            yield from _parents(inventory, document)
        elif (document.group, document.kind) in _POOLS:
            yield from _picker(inventory, document)
        elif document.kind in {"InferenceModel", "InferenceModelRewrite"}:
            yield from _pool(inventory, document)


def _parents(inventory: Inventory, route: Document) -> Iterator[Finding]:
    for index, ref in enumerate((route.obj.get("spec") or {}).get("parentRefs") or []):
        if (ref.get("kind") or "Gateway") != "Gateway":
            continue
        namespace = ref.get("namespace") or route.namespace
        # A Gateway is usually somebody else's: only a likely slip of the pen is worth a word.
        if inventory.names(GATEWAY.group, "Gateway", namespace):
            yield from missing(
                inventory,
                route,
                ("spec", "parentRefs", index),
                group=GATEWAY.group,
                kind="Gateway",
                namespace=namespace,
                name=str(ref.get("name")),
            )


def _picker(inventory: Inventory, pool: Document) -> Iterator[Finding]:
    ref = picker_ref(pool.obj)
    key = "endpointPickerRef" if pool.group == INFERENCEPOOL.group else "extensionRef"
    if ref is None or (ref.get("kind") or "Service") != "Service":
        return
    yield from missing(
        inventory,
        pool,
        ("spec", key),
        group="",
        kind=SERVICE.kind,
        namespace=pool.namespace,
        name=str(ref.get("name")),
    )


def _pool(inventory: Inventory, model: Document) -> Iterator[Finding]:
    ref = (model.obj.get("spec") or {}).get("poolRef")
    if not ref:
        return
    # The group that each kind of object takes for granted, as its CRD has it.
    default = INFERENCEPOOL_X.group if model.kind == "InferenceModel" else INFERENCEPOOL.group
    yield from missing(
        inventory,
        model,
        ("spec", "poolRef"),
        group=ref.get("group") or default,
        kind="InferencePool",
        namespace=model.namespace,
        name=str(ref.get("name")),
    )
