"""Hash → ReplicaSet → destination, the one way all components read it."""

from __future__ import annotations

from typing import Any

from inference_common.names import DESTINATION_ANNOTATION, HASH_LABEL, IDENTITY_ANNOTATION
from inference_common.revisions import Revision, revision_of


def make_set(
    pod_template_hash: str, owner: str, annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"chat-{pod_template_hash}",
            "labels": {HASH_LABEL: pod_template_hash},
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "spec": {"replicas": 2, "template": {"metadata": {"annotations": annotations}}},
        "status": {"readyReplicas": 1},
    }


def test_a_hash_is_the_revision_of_the_replica_set_that_the_rollout_owns() -> None:
    annotations = {DESTINATION_ANNOTATION: "travel-helper-v2", IDENTITY_ANNOTATION: "sha256:1"}
    sets = [make_set("h1", "other"), make_set("h1", "mine", annotations), make_set("h2", "mine")]
    assert revision_of("mine", "h1", sets) == Revision(
        pod_template_hash="h1",
        replica_set="chat-h1",
        destination="travel-helper-v2",
        identity="sha256:1",
        replicas=2,
        ready_replicas=1,
    )


def test_equal_templates_of_another_rollout_are_not_this_rollouts_revision() -> None:
    assert revision_of("mine", "h1", [make_set("h1", "other")]) is None


def test_a_template_without_annotations_has_no_destination() -> None:
    found = revision_of("mine", "h2", [make_set("h2", "mine")])
    assert found is not None
    assert found.destination is None
