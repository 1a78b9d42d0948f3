"""Selectors and failure modes of pools: what decides which pods a share of traffic reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEPOOL, INFERENCEPOOL_X
from inference_common.names import HASH_LABEL
from inference_common.pools import hash_of, picker_ref, selector_of
from inference_plugin.config import DestinationMode
from inference_plugin.lint.findings import Finding, Severity, finding
from inference_plugin.pools import base_selector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference_plugin.lint.documents import Document
    from inference_plugin.lint.subject import Subject

Object = dict[str, Any]
_SELECTOR: Final = ("spec", "selector")


def of_rollout(subject: Subject) -> Iterator[Finding]:
    """The pools that the Rollout's configuration names."""
    pools = [
        pool
        for backend, _ in subject.backends()
        if (pool := subject.inventory.of(backend.resource, backend.namespace, backend.name))
        and pool.kind == INFERENCEPOOL.kind
    ]
    mode = subject.config.mode
    if mode is DestinationMode.SHARED_POOL:
        for resource, name, _ in subject.carriers():
            pool = subject.inventory.of(resource, subject.namespace, name)
            if pool is not None:
                yield from _of_this_rollout(subject, pool)
                yield from _fail_open(pool, Severity.ERROR)
    elif mode is DestinationMode.HASH_ADDRESSED:
        for pool in pools:
            yield from _of_this_rollout(subject, pool)
    elif mode is DestinationMode.MODEL:
        yield from _fails_closed(subject)
    else:
        yield from _apart(subject, pools)


def _of_this_rollout(subject: Subject, pool: Document) -> Iterator[Finding]:
    if hash_of(pool.obj) is not None:
        yield finding(
            Severity.WARNING,
            "pool-hash",
            pool,
            *_SELECTOR,
            what=f"the selector has the key {HASH_LABEL}",
            why="the plugin owns that key; applying this manifest again takes it from the plugin "
            "and may empty the pool",
            remedy="leave the key out of the manifest",
        )
    if subject.template is None:
        return
    labels = {
        str(key): str(value)
        for key, value in ((subject.template[2].get("metadata") or {}).get("labels") or {}).items()
    }
    wrong = {
        key: value for key, value in base_selector(pool.obj).items() if labels.get(key) != value
    }
    if wrong:
        shown = ", ".join(f"{key}: {value}" for key, value in sorted(wrong.items()))
        yield finding(
            Severity.ERROR,
            "pool-selector",
            pool,
            *_SELECTOR,
            what=f"the selector asks for {shown}, which the pods of {subject.document.title} do "
            "not have",
            why="the pool has no pods, now and after it is aimed at a revision",
            remedy="select by labels of the Rollout's pod template",
        )
    others = _other_workloads(subject, pool)
    if others:
        yield finding(
            Severity.WARNING,
            "pool-selector",
            pool,
            *_SELECTOR,
            what=f"the selector also fits the pods of {', '.join(others)}",
            why="until the pool is aimed, and after the Rollout has gone, their pods get requests "
            "for this model",
            remedy="select by a label that only this Rollout's pods have",
        )


def _other_workloads(subject: Subject, pool: Document) -> list[str]:
    """Other workloads of the files whose pods the pool would hold."""
    wanted = base_selector(pool.obj).items()
    own = subject.template[0] if subject.template else subject.document
    found = []
    for each in subject.inventory:
        if each.namespace != pool.namespace or each in (own, subject.document):
            continue
        spec = each.obj.get("spec")
        template = spec.get("template") if isinstance(spec, dict) else None
        metadata = template.get("metadata") if isinstance(template, dict) else None
        labels = (metadata or {}).get("labels") or {}
        if labels and wanted and wanted <= labels.items():
            found.append(each.title)
    return sorted(found)


def _apart(subject: Subject, pools: list[Document]) -> Iterator[Finding]:
    """Pools of two versions that hold the same pods make every weight meaningless."""
    if subject.config.mode is DestinationMode.NAMED:
        # Of the other revisions only the pools on the managed routes are known.
        pools = [each for each in subject.inventory if _is_pool(each) and _routed(subject, each)]
    for index, pool in enumerate(pools):
        for other in pools[:index]:
            if other.namespace == pool.namespace and selector_of(other.obj) == selector_of(
                pool.obj
            ):
                yield finding(
                    Severity.ERROR,
                    "pool-selector",
                    pool,
                    *_SELECTOR,
                    what=f"the selector is that of {other.title}",
                    why="both pools hold the same pods, whatever their weights",
                    remedy="select each version by a label of its own, or let the plugin do it "
                    "(inferencePools)",
                )


def _is_pool(document: Document) -> bool:
    return document.kind == INFERENCEPOOL.kind and document.group in {
        INFERENCEPOOL.group,
        INFERENCEPOOL_X.group,
    }


def _routed(subject: Subject, pool: Document) -> bool:
    for resource, name, _ in subject.carriers():
        route = subject.inventory.of(resource, subject.object_namespace, name)
        for rule in ((route.obj.get("spec") or {}).get("rules") or []) if route else []:
            for ref in rule.get("backendRefs") or []:
                where = ref.get("namespace") or subject.object_namespace
                if (ref.get("group"), ref.get("kind"), where, ref.get("name")) == (
                    pool.group,
                    pool.kind,
                    pool.namespace,
                    pool.name,
                ):
                    return True
    return False


def _fails_closed(subject: Subject) -> Iterator[Finding]:
    """The picker draws the adapter: without it the gateway must not send requests by itself."""
    for resource, name, _ in subject.carriers():
        model = subject.inventory.of(resource, subject.object_namespace, name)
        ref = ((model.obj.get("spec") or {}).get("poolRef") or {}) if model else {}
        for group in (INFERENCEPOOL.group, INFERENCEPOOL_X.group):
            pool = subject.inventory.get(
                group, INFERENCEPOOL.kind, subject.object_namespace, str(ref.get("name"))
            )
            if pool is not None and ref.get("group", group) == group:
                yield from _fail_open(pool, Severity.WARNING)


def _fail_open(pool: Document, severity: Severity) -> Iterator[Finding]:
    key = "endpointPickerRef" if pool.group == INFERENCEPOOL.group else "extensionRef"
    if (picker_ref(pool.obj) or {}).get("failureMode") == "FailOpen":
        yield finding(
            severity,
            "fail-open",
            pool,
            *("spec", key, "failureMode"),
            what="failureMode is FailOpen",
            why="while the picker is away, requests reach the pods without it: no version or "
            "adapter is drawn, so that the weights do not hold",
            remedy="set FailClose",
        )
