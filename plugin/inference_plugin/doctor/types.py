"""Resource types: which are served, and in which version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inference_common.kube import (
    GRPCROUTE,
    HTTPROUTE,
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    ROLLOUT,
)
from inference_plugin.doctor.checks import Check, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from inference_common.kube import Resource

_CARRIERS: Final = (
    *(HTTPROUTE, GRPCROUTE, INFERENCEMODEL, INFERENCEMODELREWRITE, INFERENCEMODELREWRITE_X),
    *(INFERENCEPOOL, INFERENCEPOOL_X),
)


def check_types(found: Mapping[Resource, Resource | None]) -> Iterator[Check]:
    """What is made of the types that the server was written for, each as it is served."""
    name = "types"
    if found.get(ROLLOUT) is None:
        yield fail(
            name,
            "no Rollouts (argoproj.io/v1alpha1) are served",
            "install Argo Rollouts",
        )
    carriers = [each for each in _CARRIERS if found.get(each) is not None]
    if not carriers:
        yield fail(
            name,
            "neither routes of the Gateway API nor inference types are served",
            "install the CustomResourceDefinitions that your gateway and pickers need",
        )
    others = [
        f"{each.kind} {served.api_version} (made for {each.version})"
        for each in (ROLLOUT, *_CARRIERS)
        if (served := found.get(each)) is not None and served.version != each.version
    ]
    if others:
        yield warn(
            name,
            f"served in other versions: {', '.join(others)}",
            "try a canary before you rely on it: their fields may differ",
        )
    elif carriers and found.get(ROLLOUT) is not None:
        kinds = (f"{each.kind} {each.group}/{each.version}" for each in carriers)
        yield ok(name, f"Rollout {ROLLOUT.version}; {', '.join(kinds)}")
