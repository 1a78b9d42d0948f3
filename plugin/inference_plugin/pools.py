"""How the plugin aims InferencePools of both API groups at a revision, and gives them up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from inference_common.kube import INFERENCEPOOL
from inference_common.names import FIELD_MANAGER, HASH_LABEL
from inference_common.pools import hash_of, selector_of
from inference_plugin.patches import PoolAim

if TYPE_CHECKING:
    from inference_common.kube import Resource

Object = dict[str, Any]


def base_selector(pool: Object) -> dict[str, str]:
    """The selector without the pod-template-hash."""
    return {key: value for key, value in selector_of(pool).items() if key != HASH_LABEL}


def aim(resource: Resource, pool: Object, pod_template_hash: str) -> PoolAim:
    """The server-side apply that aims the pool at a revision.

    It owns just the pod-template-hash key of the selector. uid and resourceVersion make it fail
    with 409 on any other state of the pool than the one that was planned with.
    """
    metadata = pool["metadata"]
    labels = {HASH_LABEL: pod_template_hash}
    selector: Object = (
        {"matchLabels": labels} if resource.group == INFERENCEPOOL.group else dict(labels)
    )
    return PoolAim(
        resource=resource,
        namespace=metadata["namespace"],
        name=metadata["name"],
        pod_template_hash=pod_template_hash,
        body={
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "spec": {"selector": selector},
        },
        summary=f"{title_of(pool)}: aimed at {pod_template_hash} (was {hash_of(pool) or 'any'})",
    )


def is_ours(pool: Object) -> bool:
    """Whether the pod-template-hash in the selector is this plugin's, by the managedFields."""
    return hash_of(pool) is not None and any(
        field.get("manager") == FIELD_MANAGER
        and field.get("operation") == "Apply"
        and f"f:{HASH_LABEL}" in json.dumps(field.get("fieldsV1") or {})
        for field in pool["metadata"].get("managedFields") or []
    )


def release_pool(resource: Resource, pool: Object) -> PoolAim:
    """The server-side apply that gives up the pod-template-hash key of the selector."""
    metadata = pool["metadata"]
    return PoolAim(
        resource=resource,
        namespace=metadata["namespace"],
        name=metadata["name"],
        pod_template_hash="",
        body={
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        },
        summary=f"{title_of(pool)}: released, its selector has no pod-template-hash any more",
    )


def title_of(pool: Object) -> str:
    """The pool for a message."""
    return f"InferencePool {pool['metadata']['namespace']}/{pool['metadata']['name']}"
