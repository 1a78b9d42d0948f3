"""JSON Patches (RFC 6902) that fit only the object they were made for.

A failed ``test`` answers 422, a wrong resourceVersion only answers 409 when it is put in by
``replace`` (measured on kube-apiserver 1.36.3), so both stand in front of every change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_common.names import COMMANDED_ANNOTATION

if TYPE_CHECKING:
    from inference_common.kube import Resource

Object = dict[str, Any]
Operation = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectPatch:
    """A JSON Patch of one object. ``summary`` says what it changes, for Event and log."""

    resource: Resource
    namespace: str
    name: str
    operations: tuple[Operation, ...]
    summary: str


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
    """The changes behind the object's resourceVersion, with the commanded annotation."""
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
    if annotation is not None:
        if metadata.get("annotations") is None:
            operations.append({"op": "add", "path": "/metadata/annotations", "value": {}})
        path = pointer("metadata", "annotations", COMMANDED_ANNOTATION)
        operations.append({"op": "add", "path": path, "value": annotation})
    return tuple(operations)
