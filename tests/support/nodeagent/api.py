"""What the node agent asks of the API server."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_common.errors import KubeError
from inference_common.kube import CONFIGMAP, EVENT, POD, SECRET, PatchKind, Resource
from support.nodeagent.moments import moment_of, now_utc, text_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from inference_common.kube import Kube
    from support.nodeagent.environment import Contents, Reference
    from support.nodeagent.volumes import TokenRequest

SERVICE_ACCOUNT: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
_COMPONENT: Final = "node-agent"
_MESSAGE_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bound token and when to ask for the next one."""

    text: str
    renew_at: dt.datetime


class PodApi:
    """Reads and writes on behalf of pods. Every method raises KubeError."""

    def __init__(self, kube: Kube) -> None:
        """Use this connection."""
        self._kube = kube

    async def contents(self, namespace: str, references: Iterable[Reference]) -> Contents:
        """The data of ConfigMaps and Secrets; None for those that do not exist."""
        found: Contents = {}
        for reference in references:
            resource = SECRET if reference.kind == "Secret" else CONFIGMAP
            try:
                obj = await self._kube.get(resource, reference.name, namespace)
            except KubeError as error:
                if not error.not_found:
                    raise
                found[reference] = None
                continue
            found[reference] = _data(obj, encoded=reference.kind == "Secret")
        return found

    async def token(self, pod: Mapping[str, Any], request: TokenRequest) -> Token:
        """A token of the pod's ServiceAccount, bound to the pod, to be renewed at 80 % of life."""
        metadata = pod["metadata"]
        reference = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        spec: dict[str, Any] = {
            "expirationSeconds": request.expiration_s,
            "boundObjectRef": reference,
            "audiences": [request.audience] if request.audience else [],
        }
        asked_at = now_utc()
        answer = await self._kube.create(
            SERVICE_ACCOUNT,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
            metadata["namespace"],
            name=pod["spec"].get("serviceAccountName", "default"),
            subresource="token",
        )
        life = moment_of(answer["status"]["expirationTimestamp"]) - asked_at
        return Token(text=answer["status"]["token"], renew_at=asked_at + 0.8 * life)

    async def bind(self, pod: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        """Bind the pod to a node."""
        metadata = pod["metadata"]
        await self._kube.create(
            POD, body, metadata["namespace"], name=metadata["name"], subresource="binding"
        )

    async def write_status(
        self, pod: Mapping[str, Any], status: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Patch the status; conditions of others stay, and a pod of another uid answers 422."""
        metadata = pod["metadata"]
        return await self._kube.patch(
            POD,
            metadata["name"],
            {"metadata": {"uid": metadata["uid"]}, "status": status},
            metadata["namespace"],
            kind=PatchKind.STRATEGIC,
            subresource="status",
            field_manager=_COMPONENT,
        )

    async def delete(self, pod: Mapping[str, Any]) -> None:
        """Remove a pod whose containers have ended, unless another one has its name by now."""
        metadata = pod["metadata"]
        await self._kube.delete(
            POD,
            metadata["name"],
            metadata["namespace"],
            grace_period_s=0,
            uid=metadata["uid"],
        )

    async def event(
        self, pod: Mapping[str, Any], kind: str, reason: str, message: str, container: str
    ) -> None:
        """Write an Event about the pod."""
        metadata = pod["metadata"]
        moment = text_of(now_utc())
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        }
        if container:
            about["fieldPath"] = f"spec.containers{{{container}}}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message[:_MESSAGE_LIMIT],
            "source": {"component": _COMPONENT, "host": pod["spec"].get("nodeName", "")},
            "reportingComponent": _COMPONENT,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        await self._kube.create(EVENT, body, metadata["namespace"])


def _data(obj: Mapping[str, Any], *, encoded: bool) -> dict[str, bytes]:
    if encoded:
        return {key: base64.b64decode(text) for key, text in (obj.get("data") or {}).items()}
    plain = {key: text.encode() for key, text in (obj.get("data") or {}).items()}
    binary = obj.get("binaryData") or {}
    return plain | {key: base64.b64decode(text) for key, text in binary.items()}
