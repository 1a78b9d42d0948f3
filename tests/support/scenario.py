"""One end-to-end scenario: a namespace on the shared cluster, and what is awaited in it.

Waiting is always for a condition of an object, seen through a watch; when it does not come in
time, the failure shows the object as it last was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from inference_common.errors import KubeError
from inference_common.kube import (
    DEPLOYMENT,
    EVENT,
    GATEWAY,
    GRPCROUTE,
    HTTPROUTE,
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    NAMESPACE,
    POD,
    REPLICASET,
    ROLLOUT,
    Kube,
    PatchKind,
    Resource,
)
from inference_common.names import HASH_LABEL
from inference_common.pods import shows_ready
from inference_common.pools import hash_of
from inference_common.watching import WatchCache
from support import manifests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from support.cluster.client import ClusterClient

Object = dict[str, Any]
TIMEOUT_S: Final = 180.0
_POLL_S: Final = 0.1
_RESOURCES: Final = {
    (resource.api_version, resource.kind): resource
    for resource in (
        *(DEPLOYMENT, GATEWAY, HTTPROUTE, INFERENCEMODEL, INFERENCEPOOL, POD, REPLICASET, ROLLOUT),
        *(INFERENCEMODELREWRITE, INFERENCEMODELREWRITE_X, GRPCROUTE),
        Resource("", "v1", "services", "Service"),
        Resource("", "v1", "podtemplates", "PodTemplate"),
        Resource("apps", "v1", "statefulsets", "StatefulSet"),
        Resource("", "v1", "serviceaccounts", "ServiceAccount"),
        Resource("", "v1", "configmaps", "ConfigMap"),
        Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
        Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
        Resource("inference.networking.x-k8s.io", "v1alpha2", "inferencepools", "InferencePool"),
        Resource("argoproj.io", "v1alpha1", "analysistemplates", "AnalysisTemplate"),
    )
}


class ScenarioTimeout(AssertionError):  # noqa: N818 - it reads as what happened
    """A condition did not come in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A namespace of its own and the handles to act on it and to look at it."""

    cluster: ClusterClient
    kube: Kube
    namespace: str

    @classmethod
    async def start(cls, cluster: ClusterClient, name: str) -> Self:
        """Create a fresh namespace and wait until pods can be made in it."""
        kube = await Kube.connect(cluster.kubeconfig)
        namespace = f"{name[:40].strip('-')}-{secrets.token_hex(3)}"
        await kube.create(NAMESPACE, {"metadata": {"name": namespace}})
        scenario = cls(cluster=cluster, kube=kube, namespace=namespace)
        accounts = _RESOURCES["v1", "ServiceAccount"]
        await scenario.until(accounts, "default", lambda account: account is not None)
        return scenario

    async def stop(self) -> None:
        """Delete the namespace; its pods end in the background."""
        with contextlib.suppress(KubeError):
            await self.kube.delete(NAMESPACE, self.namespace)
        await self.kube.close()

    async def apply(self, *objects: Object) -> None:
        """Create the objects, or apply them over what is there."""
        for obj in objects:
            resource = _RESOURCES[obj["apiVersion"], obj["kind"]]
            await self.kube.patch(
                resource,
                obj["metadata"]["name"],
                obj,
                self.namespace,
                kind=PatchKind.APPLY,
                field_manager="scenario",
                force=True,
            )

    async def get(self, resource: Resource, name: str) -> Object:
        """One object of the namespace."""
        return await self.kube.get(resource, name, self.namespace)

    async def argo(self, *args: str) -> str:
        """Run ``kubectl argo rollouts ARGS`` in the namespace and return what it prints."""
        return await self.cluster.argo(*args, "--namespace", self.namespace)

    async def until(
        self,
        resource: Resource,
        name: str,
        predicate: Callable[[Object | None], Any],
        *,
        what: str = "the condition",
        timeout_s: float = TIMEOUT_S,
    ) -> Object:
        """The object once the predicate is true of it (None while it does not exist)."""
        selector = f"metadata.name={name}"
        async with WatchCache(
            self.kube, resource, self.namespace, field_selector=selector
        ) as cache:
            await cache.synced()
            try:
                await cache.until(
                    lambda c: predicate(c.get(name, self.namespace)), timeout_s=timeout_s
                )
            except TimeoutError:
                seen = cache.get(name, self.namespace)
                raise ScenarioTimeout(
                    f"{resource.kind} {name}: {what} did not come within {timeout_s:.0f} s. "
                    f"It is now: {_short(seen)}\nEvents: {await self._recent_events()}"
                ) from None
            return cache.get(name, self.namespace) or {}

    async def revise(self, rollout: str, change: Object | str) -> None:
        """Change the pod template of a Rollout: a merge of it, or the VERSION of a no-op pod."""
        if isinstance(change, str):
            change = {"spec": {"containers": [manifests.noop(version=change)]}}
        obj = await self.get(ROLLOUT, rollout)
        merged = _merge_template(obj["spec"]["template"], change)
        await self.kube.patch(
            ROLLOUT,
            rollout,
            {"spec": {"template": merged}},
            self.namespace,
            kind=PatchKind.MERGE,
            field_manager="scenario",
        )

    async def reconcile(self, rollout: str) -> None:
        """Make the controller go through the Rollout once more, with nothing to change for us.

        An annotation on a ReplicaSet makes it look; its own metrics tell when it has.
        """
        obj = await self.get(ROLLOUT, rollout)
        before = await self._reconciles(rollout)
        change = {"metadata": {"annotations": {"scenario/touched": str(before)}}}
        name = f"{rollout}-{obj['status']['stableRS']}"
        await self.kube.patch(REPLICASET, name, change, self.namespace, kind=PatchKind.MERGE)
        async with asyncio.timeout(TIMEOUT_S):
            # A metrics page can't be watched.
            while await self._reconciles(rollout) == before:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)

    async def _reconciles(self, rollout: str) -> int:
        """How often the controller has gone through the Rollout, by its own metrics."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.cluster.document["argo_metrics"]) as response,
        ):
            page = await response.text()
        found = re.search(
            rf'^rollout_reconcile_count{{name="{rollout}",namespace="{self.namespace}"}} (\d+)',
            page,
            re.MULTILINE,
        )
        return int(found.group(1)) if found else 0

    async def until_paused(self, rollout: str, weight: int, timeout_s: float = TIMEOUT_S) -> Object:
        """The Rollout once it waits in a pause step with that weight given to the canary."""

        def paused(obj: Object | None) -> bool:
            return (
                obj is not None
                and is_observed(obj)
                and bool(obj["status"].get("pauseConditions"))
                and canary_weight(obj) == weight
            )

        return await self.until(
            ROLLOUT, rollout, paused, what=f"a pause at weight {weight}", timeout_s=timeout_s
        )

    async def until_healthy(self, rollout: str, timeout_s: float = TIMEOUT_S) -> Object:
        """The Rollout once it is fully promoted and available."""

        def healthy(obj: Object | None) -> bool:
            if obj is None or not is_observed(obj):
                return False
            status = obj["status"]
            return (
                status.get("phase") == "Healthy"
                and status.get("stableRS") == status.get("currentPodHash")
                and not status.get("abort")
            )

        return await self.until(ROLLOUT, rollout, healthy, what="Healthy", timeout_s=timeout_s)

    async def until_aborted(self, rollout: str) -> Object:
        """The Rollout once the controller has taken the abort in, so that a retry means a new one.

        The weights are back on stable before that: the plugin does not wait for the controller.
        """
        return await self.until(
            ROLLOUT,
            rollout,
            # abort is the command's, abortedAt the controller's.
            lambda obj: obj is not None and bool(obj["status"].get("abortedAt")),
            what="status.abortedAt",
        )

    async def until_weights(
        self, route: str, expected: dict[str, int | None], timeout_s: float = TIMEOUT_S
    ) -> Object:
        """The HTTPRoute once the weights of its first rule are exactly these."""
        return await self.until(
            HTTPROUTE,
            route,
            lambda obj: obj is not None and weights(obj) == expected,
            what=f"weights {expected}",
            timeout_s=timeout_s,
        )

    async def until_canary_share(self, route: str, weight: int) -> Object:
        """The HTTPRoute once the smaller weight of its first rule is this."""
        return await self.until(
            HTTPROUTE,
            route,
            lambda obj: obj is not None and min(weights(obj).values(), key=_number) == weight,
            what=f"a smaller weight of {weight}",
        )

    async def until_accepted(self, route: str) -> Object:
        """The HTTPRoute once the gateway has taken its present generation."""
        return await self.until(
            HTTPROUTE, route, lambda obj: obj is not None and is_accepted(obj), what="Accepted"
        )

    async def until_targets(self, model: str, expected: dict[str, int | None]) -> Object:
        """The InferenceModel once its targets are exactly these."""
        return await self.until(
            INFERENCEMODEL,
            model,
            lambda obj: obj is not None and targets(obj) == expected,
            what=f"targets {expected}",
        )

    async def until_available(self, deployment: str) -> Object:
        """The Deployment once all its pods are available."""

        def available(obj: Object | None) -> bool:
            return (
                obj is not None
                and is_observed(obj)
                and obj["status"].get("availableReplicas") == obj["spec"]["replicas"]
            )

        return await self.until(DEPLOYMENT, deployment, available, what="available")

    async def until_event(self, reason: str, contains: str = "") -> Object:
        """The first Event of that reason whose message contains the text."""
        async with WatchCache(self.kube, EVENT, self.namespace) as cache:
            await cache.synced()

            def found(cache: WatchCache) -> Object | None:
                for event in cache.items():
                    if event.get("reason") == reason and contains in event.get("message", ""):
                        return event
                return None

            try:
                return await cache.until(found, TIMEOUT_S)
            except TimeoutError:
                raise ScenarioTimeout(
                    f"no Event {reason} with {contains!r}: {await self._recent_events()}"
                ) from None

    async def hashes(self, rollout: str) -> dict[str, str]:
        """The stable and the current pod-template-hash of a Rollout."""
        status = (await self.get(ROLLOUT, rollout))["status"]
        return {"stable": status["stableRS"], "current": status["currentPodHash"]}

    async def pool_hash(self, name: str, resource: Resource = INFERENCEPOOL) -> str | None:
        """The pod-template-hash that a pool's selector carries, or None."""
        return hash_of(await self.get(resource, name))

    async def address(self) -> str:
        """``http://address:port`` of the scenario's Gateway."""
        obj = await self.until(
            GATEWAY,
            manifests.GATEWAY,
            lambda gateway: gateway is not None and gateway.get("status", {}).get("addresses"),
            what="an address",
        )
        return f"http://{obj['status']['addresses'][0]['value']}:{manifests.LISTENER_PORT}"

    async def set_ready(self, pod: str, *, ready: bool) -> None:
        """Make a no-op pod unready, or ready again, and wait until its status says so."""
        annotation = "local.inference-rollouts.io/ready"
        value = None if ready else "false"
        await self.kube.patch(
            POD,
            pod,
            {"metadata": {"annotations": {annotation: value}}},
            self.namespace,
            kind=PatchKind.MERGE,
        )
        await self.until(
            POD, pod, lambda obj: obj is not None and is_ready(obj) is ready, what=f"ready {ready}"
        )

    async def pods_of(self, pod_template_hash: str) -> list[Object]:
        """Pods of one revision."""
        found = await self.kube.list(POD, self.namespace, f"{HASH_LABEL}={pod_template_hash}")
        pods: list[Object] = found["items"]
        return pods

    async def until_no_pods(self, pod_template_hash: str) -> None:
        """Return when the revision has no pods any more."""
        await self.until_gone(f"{HASH_LABEL}={pod_template_hash}")

    async def until_gone(self, selector: str) -> None:
        """Return when no pods have these labels any more."""
        async with WatchCache(self.kube, POD, self.namespace, selector) as cache:
            await cache.synced()
            await cache.until(lambda pods: len(pods) == 0, TIMEOUT_S)

    async def _recent_events(self) -> str:
        found = await self.kube.list(EVENT, self.namespace)
        lines = [
            f"{event.get('reason')}: {event.get('message', '')[:200]}"
            for event in found["items"][-12:]
        ]
        return "\n  ".join(["", *lines])


def weights(route: Object) -> dict[str, int | None]:
    """Weights of the first rule by name of the backendRef, None where absent."""
    refs = route["spec"]["rules"][0]["backendRefs"]
    return {ref["name"]: ref.get("weight") for ref in refs}


def targets(model: Object) -> dict[str, int | None]:
    """Weights of an InferenceModel by target, None where absent."""
    return {target["name"]: target.get("weight") for target in model["spec"]["targetModels"]}


def is_observed(obj: Object) -> bool:
    """Whether the controller has seen the present generation (Argo keeps it as a string)."""
    seen = obj.get("status", {}).get("observedGeneration")
    return seen is not None and int(seen) >= int(obj["metadata"]["generation"])


def canary_weight(rollout: Object) -> int:
    """The weight that Argo believes the canary to have."""
    canary = rollout["status"].get("canary", {}).get("weights", {}).get("canary", {})
    return int(canary.get("weight", 0))


def is_ready(pod: Object) -> bool:
    """Whether the pod's Ready condition is true."""
    return shows_ready(pod)


def is_accepted(route: Object) -> bool:
    """Whether every parent has accepted this generation and resolved its references."""
    parents = route.get("status", {}).get("parents", [])
    generation = route["metadata"]["generation"]
    return bool(parents) and all(
        _is_true(parent["conditions"], kind, generation)
        for parent in parents
        for kind in ("Accepted", "ResolvedRefs")
    )


def _is_true(conditions: Iterable[Object], kind: str, generation: int | None = None) -> bool:
    return any(
        condition["type"] == kind
        and condition["status"] == "True"
        and (generation is None or condition.get("observedGeneration") == generation)
        for condition in conditions
    )


def _merge_template(template: Object, change: Object) -> Object:
    """The template with the change: mappings merge, containers merge by name, lists replace."""
    merged = dict(template)
    for key, value in change.items():
        old = merged.get(key)
        if key == "containers" and isinstance(old, list):
            by_name = {container["name"]: container for container in value}
            merged[key] = [
                _merge_template(container, by_name.get(container["name"], {})) for container in old
            ]
        elif isinstance(value, dict) and isinstance(old, dict):
            merged[key] = _merge_template(old, value)
        else:
            merged[key] = value
    return merged


def _number(weight: int | None) -> int:
    return 1 if weight is None else weight


def _short(obj: Object | None) -> str:
    if obj is None:
        return "absent"
    shown = {"spec": obj.get("spec"), "status": obj.get("status")}
    if obj.get("kind") == "Rollout":
        shown = {"status": obj.get("status")}
    return json.dumps(shown)[:3000]
