"""Priorities as the cluster's InferenceObjectives say them, of both API groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEPOOL, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
