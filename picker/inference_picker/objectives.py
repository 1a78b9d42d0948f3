"""Priorities as the cluster's InferenceObjectives say them, of both API groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEPOOL, Resource
from inference_picker.optional_watch import OptionalWatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from inference_common.kube import Kube

INFERENCEOBJECTIVE: Final = Resource(
    "llm-d.ai", "v1alpha2", "inferenceobjectives", "InferenceObjective"
)
INFERENCEOBJECTIVE_X: Final = Resource(
    "inference.networking.x-k8s.io", "v1alpha2", "inferenceobjectives", "InferenceObjective"
)


def priorities(
    pool_name: str, pool_group: str, objects: Iterable[Mapping[str, Any]]
) -> dict[str, int]:
    """Priority by the objective's name, of those that refer to the pool.

    Without ``priority`` it is 0 (InferenceObjective v1alpha2, spec.priority). Of two groups with
    the same name the first in ``objects`` counts.
    """
    found: dict[str, int] = {}
    for objective in objects:
        spec = objective.get("spec") or {}
        ref = spec.get("poolRef") or {}
        if ref.get("name") == pool_name and ref.get("group", INFERENCEPOOL.group) == pool_group:
            found.setdefault(objective["metadata"]["name"], int(spec.get("priority") or 0))
    return found


class ObjectiveWatch:
    """The objectives of one namespace, where the cluster has them and lets them be read.

    Nothing waits for it: without priorities every request has the usual one.
    """

    def __init__(self, kube: Kube, namespace: str) -> None:
        """Nothing runs before the watches are started."""
        self.watches = [
            OptionalWatch(kube, kind, namespace, unread="no request has a priority of its own")
            for kind in (INFERENCEOBJECTIVE, INFERENCEOBJECTIVE_X)
        ]

    def priorities(self, pool_name: str, pool_group: str) -> dict[str, int]:
        """Priority by the objective's name, as far as is known."""
        known = (obj for watch in self.watches for obj in watch.items())
        return priorities(pool_name, pool_group, known)
