"""What the server's ServiceAccount must be allowed: the rules of manifests/base/rbac.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inference_common.errors import KubeError
from inference_common.kube import (
    EVENT,
    GRPCROUTE,
    HTTPROUTE,
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    POD,
    REPLICASET,
    ROLLOUT,
    SERVICE,
    Resource,
)
from inference_plugin.cluster import ENDPOINTSLICE
from inference_plugin.doctor.checks import Check, fail, ok, skipped

if TYPE_CHECKING:
    from collections.abc import Collection

    from inference_common.kube import Kube

REVIEW: Final = Resource(
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
    namespaced=False,
)
_READ: Final = ("get", "list", "watch")
_WRITE: Final = (*_READ, "patch")
_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Verbs on one resource type, in all namespaces."""

    resource: Resource
    verbs: tuple[str, ...]


NEEDS: Final = (
    *(Need(resource=each, verbs=_READ) for each in (ROLLOUT, REPLICASET, POD, SERVICE)),
    Need(resource=ENDPOINTSLICE, verbs=("list",)),
    *(
        Need(resource=each, verbs=_WRITE)
        for each in (
            *(HTTPROUTE, GRPCROUTE, INFERENCEPOOL, INFERENCEPOOL_X, INFERENCEMODEL),
            *(INFERENCEMODELREWRITE, INFERENCEMODELREWRITE_X),
        )
    ),
    Need(resource=EVENT, verbs=("create", "patch")),
)


async def check_rights(kube: Kube, account: str, served: Collection[Resource]) -> Check:
    """Ask the API server about each verb on each resource type that is served.

    ``account`` is ``namespace/name`` of a ServiceAccount. Raises KubeError.
    """
    name = "rights"
    namespace, _, short = account.partition("/")
    user = f"system:serviceaccount:{namespace}:{short}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    missing: dict[str, list[str]] = {}
    for need in NEEDS:
        if need.resource not in served:
            continue
        for verb in need.verbs:
            attributes = {
                "group": need.resource.group,
                "resource": need.resource.plural,
                "verb": verb,
            }
            spec = {"user": user, "groups": groups, "resourceAttributes": attributes}
            try:
                answer = await kube.create(REVIEW, {"spec": spec})
            except KubeError as error:
                if error.status != _FORBIDDEN:
                    raise
                return skipped(
                    name,
                    "you may not ask about the rights of others",
                    "run doctor as a user with create on subjectaccessreviews",
                )
            if not answer["status"].get("allowed"):
                title = f"{need.resource.plural}.{need.resource.group}".rstrip(".")
                missing.setdefault(title, []).append(verb)
    if missing:
        listed = "; ".join(f"{title}: {', '.join(verbs)}" for title, verbs in missing.items())
        return fail(
            name,
            f"ServiceAccount {account} may not {listed}",
            "apply manifests/base/rbac.yaml, and bind the ClusterRole inference-rollouts-plugin "
            "to that account",
        )
    return ok(name, f"ServiceAccount {account} may do all that the server does")
