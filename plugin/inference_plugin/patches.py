"""JSON Patches (RFC 6902) that fit only the object they were made for.

A failed ``test`` answers 422, a wrong resourceVersion only answers 409 when it is put in by
``replace`` (measured on kube-apiserver 1.36.3), so both stand in front of every change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_common.names import COMMANDED_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_common.kube import Resource

Object = dict[str, Any]
Operation = dict[str, Any]
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectPatch:
    """A JSON Patch of one object. ``summary`` says what it changes, for Event and log.

    ``check``, where given, is asked about the object as a dry run would leave it, and answers why
    the patch must not be made after all; empty for nothing.
    """

    resource: Resource
    namespace: str
    name: str
    operations: tuple[Operation, ...]
    summary: str
    check: Callable[[Object], str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAim:
    """A server-side apply that owns only the pool's pod-template-hash key."""

    resource: Resource
    namespace: str
    name: str
    pod_template_hash: str
    body: Object
    summary: str


Write = ObjectPatch | PoolAim


def pointer(*parts: str | int) -> str:
    """A JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def guarded(obj: Object, changes: list[Operation], annotation: str | None) -> tuple[Operation, ...]:
    """The changes behind the object's resourceVersion, with the commanded annotation.

    An annotation without any Rollout (``{}``) is taken off.
    """
    metadata = obj["metadata"]
    operations: list[Operation] = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {
            "op": "replace",
            "path": "/metadata/resourceVersion",
            "value": metadata["resourceVersion"],
        },
        *changes,
    ]
    path = pointer("metadata", "annotations", COMMANDED_ANNOTATION)
    if annotation == "{}":
        if COMMANDED_ANNOTATION in (metadata.get("annotations") or {}):
            operations.append({"op": "remove", "path": path})
    elif annotation is not None:
        if metadata.get("annotations") is None:
            operations.append({"op": "add", "path": "/metadata/annotations", "value": {}})
        operations.append({"op": "add", "path": path, "value": annotation})
    return tuple(operations)


def inverse(patch: ObjectPatch, before: Object, now: Object) -> ObjectPatch | None:
    """The patch that takes another one back, from the object as it is now.

    It touches what the patch touched and nothing else. None when that is no longer as the patch
    left it: then somebody else has decided since.
    """
    metadata = now["metadata"]
    undone: list[Operation] = []
    for operation in reversed(patch.operations):
        path = operation["path"]
        if operation["op"] == "test" or path == "/metadata/resourceVersion":
            continue
        found, old = _value_at(now, path), _value_at(before, path)
        empty = operation.get("value") == {}
        if not empty and found != operation.get("value", _ABSENT):
            return None
        if old is not _ABSENT:
            undone.append({"op": "add", "path": path, "value": old})
        elif not empty:
            undone.append({"op": "remove", "path": path})
    operations: list[Operation] = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {
            "op": "replace",
            "path": "/metadata/resourceVersion",
            "value": metadata["resourceVersion"],
        },
        *undone,
    ]
    return ObjectPatch(
        resource=patch.resource,
        namespace=patch.namespace,
        name=patch.name,
        operations=tuple(operations),
        summary=f"{patch.summary}; taken back",
    )


def _value_at(obj: Object, path: str) -> Any:
    """What a JSON Pointer leads to, or ``_ABSENT``."""
    found: Any = obj
    for part in path.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(key)] if isinstance(found, list) else found[key]
        except (KeyError, IndexError):
            return _ABSENT
    return found
