"""Which destination a revision of a Rollout stands for.

A Rollout's revision is a ReplicaSet; its pod-template-hash is what Argo Rollouts speaks of. The
annotations of the pod template are kept by the ReplicaSet for as long as it exists, which makes
them right for undo as well. This is the one place where a hash becomes a destination, so that
the plugin's weights, the arms of the analysis and the picker's labels can't disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_common.names import DESTINATION_ANNOTATION, HASH_LABEL, IDENTITY_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision of a Rollout.

    ``destination`` and ``identity`` are the annotations of its pod template, None where absent;
    ``replicas`` is what the ReplicaSet asks for, ``ready_replicas`` what it has ready.
    """

    pod_template_hash: str
    replica_set: str
    destination: str | None
    identity: str | None
    replicas: int
    ready_replicas: int


def revision_of(rollout_uid: str, pod_template_hash: str, sets: Iterable[Any]) -> Revision | None:
    """The Rollout's revision with that hash among ReplicaSets (dictionaries), or None.

    Only ReplicaSets whose controller is the Rollout of that uid count: two Rollouts with equal
    templates have equal hashes.
    """
    for replica_set in sets:
        metadata = replica_set["metadata"]
        if metadata.get("labels", {}).get(HASH_LABEL) != pod_template_hash:
            continue
        if owner_uid(replica_set) != rollout_uid:
            continue
        template = replica_set["spec"].get("template", {}).get("metadata", {})
        annotations = template.get("annotations") or {}
        return Revision(
            pod_template_hash=pod_template_hash,
            replica_set=metadata["name"],
            destination=annotations.get(DESTINATION_ANNOTATION),
            identity=annotations.get(IDENTITY_ANNOTATION),
            replicas=int(replica_set["spec"].get("replicas", 1)),
            ready_replicas=int(replica_set.get("status", {}).get("readyReplicas", 0)),
        )
    return None


def owner_uid(obj: dict[str, Any]) -> str | None:
    """Uid of the object's controller (ownerReferences with ``controller: true``), or None."""
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            uid: str = owner["uid"]
            return uid
    return None
