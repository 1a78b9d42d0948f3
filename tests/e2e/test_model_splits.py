"""Splits beyond InferenceModel: InferenceModelRewrite of both groups, and a list at any path."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from inference_common.kube import (
    CRD,
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL_X,
    ROLLOUT,
    Resource,
)
from inference_common.names import COMMANDED_ANNOTATION
from support import manifests as m
from support.cluster.objects import create, established
from support.scenario import targets
from support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inference_common.kube import Kube
    from support.scenario import Scenario

Object = dict[str, Any]
V1 = "travel-helper-v1"
V2 = "travel-helper-v2"
LABELS = {"app": "custom-serving"}
POOL = "mymodel-pool-v1"
RELEASE = "travel-helper"
PLUGIN = {
    "kind": "ServiceAccount",
    "name": "inference-rollouts-plugin",
    "namespace": "argo-rollouts",
}


async def pool_without_traffic(scenario: Scenario) -> None:
    """A pool whose model servers and picker are no-op pods."""
    await scenario.apply(
        m.deployment("qwen", m.noop(), labels=LABELS),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        m.pool(POOL, LABELS, resource=INFERENCEPOOL_X),
    )
    await scenario.until_available("qwen")
    await scenario.until_available("picker")


def revision(adapter: str) -> Object:
    """The pod template of a release whose pod is ready at once."""
    annotations = m.destination(adapter)
    return m.pod_template(m.noop(version=adapter), labels={"app": RELEASE}, annotations=annotations)


def release(config: Object) -> Object:
    """The release Rollout of the first adapter."""
    return m.rollout(RELEASE, revision(V1), config)


def rewritten(obj: Object) -> dict[str, int | None]:
    """Weights of the first rule by target, None where absent."""
    found = obj["spec"]["rules"][0]["targets"]
    return {target["modelRewrite"]: target.get("weight") for target in found}


async def until_rewritten(
    scenario: Scenario, resource: Resource, expected: dict[str, int | None]
) -> Object:
    return await scenario.until(
        resource,
        "travel",
        lambda obj: obj is not None and rewritten(obj) == expected,
        what=f"targets {expected}",
    )


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param(INFERENCEMODELREWRITE, id="llm-d.ai"),
        pytest.param(INFERENCEMODELREWRITE_X, id="inference.networking.x-k8s.io"),
    ],
)
async def test_a_rewrite_is_aborted_promoted_and_undone(
    scenario: Scenario, resource: Resource
) -> None:
    await pool_without_traffic(scenario)
    rewrite = m.model_rewrite(
        "travel", "travelhelper", POOL, {V1: None, "fallback": None}, resource=resource
    )
    other = {"matches": [{"model": {"value": "chat"}}], "targets": [{"modelRewrite": "chat-v1"}]}
    rewrite["spec"]["rules"].append(other)
    await scenario.apply(rewrite)
    chosen = {"name": "travel", "model": "travelhelper", "group": resource.group}
    await scenario.apply(release({"inferenceModelRewrite": chosen}))
    await scenario.until_healthy(RELEASE)
    untouched = (await scenario.get(resource, "travel"))["spec"]["rules"]
    # A canary, taken back. Somebody else's target keeps its half all along.
    await scenario.revise(RELEASE, revision(V2))
    await scenario.until_paused(RELEASE, 10)
    await until_rewritten(scenario, resource, {V1: 9, "fallback": 10, V2: 1})
    await scenario.argo("abort", RELEASE)
    await until_rewritten(scenario, resource, {V1: 10, "fallback": 10})
    await scenario.until_aborted(RELEASE)
    # The same again, to the end.
    await scenario.argo("retry", "rollout", RELEASE)
    await scenario.until_paused(RELEASE, 10)
    await until_rewritten(scenario, resource, {V1: 9, "fallback": 10, V2: 1})
    await scenario.argo("promote", RELEASE)
    await scenario.until_paused(RELEASE, 50)
    await until_rewritten(scenario, resource, {V1: 5, "fallback": 10, V2: 5})
    await scenario.argo("promote", RELEASE)
    await scenario.until_healthy(RELEASE)
    await until_rewritten(scenario, resource, {"fallback": 10, V2: 10})
    await scenario.argo("undo", RELEASE)
    await scenario.until_paused(RELEASE, 10)
    await until_rewritten(scenario, resource, {"fallback": 10, V2: 9, V1: 1})
    rules = (await scenario.get(resource, "travel"))["spec"]["rules"]
    assert rules[0]["matches"] == untouched[0]["matches"]
    assert rules[1:] == untouched[1:]


async def test_answers_follow_the_rewrite_of_the_newer_group(scenario: Scenario) -> None:
    """Both groups are installed here, so that it is the newer one that plugin and picker mean."""
    vllm = m.simulated_vllm("Qwen-2.5-7B-Instruct", adapters=(V1, V2))
    await scenario.apply(
        m.gateway(),
        *m.picker_rights(),
        m.deployment("qwen", vllm, labels=LABELS, replicas=2),
        m.pool(POOL, LABELS, picker="picker", resource=INFERENCEPOOL_X),
        *m.picker("picker", POOL, resource=INFERENCEPOOL_X),
        m.model_rewrite("travel", "travelhelper", POOL, {V1: None}),
        m.route("llm", m.pool_ref(POOL, resource=INFERENCEPOOL_X)),
    )
    await scenario.until_available("qwen")
    await scenario.until_available("picker")
    await scenario.apply(release({"inferenceModelRewrite": {"name": "travel"}}))
    await scenario.until_healthy(RELEASE)
    async with Traffic(await scenario.address(), model="travelhelper", rate=20) as traffic:
        await traffic.until_answers(20)
        await scenario.revise(RELEASE, revision(V2))
        await scenario.until_paused(RELEASE, 10)
        await until_rewritten(scenario, INFERENCEMODELREWRITE, {V1: 90, V2: 10})
        # Nothing tells when the picker has taken in what the plugin wrote.
        await traffic.until_answered_by(V2)
        window = await traffic.until_answers(300)
        assert window.fits(V2, 0.1), window.counts()
        await scenario.argo("promote", RELEASE, "--full")
        await scenario.until_healthy(RELEASE)
        await until_rewritten(scenario, INFERENCEMODELREWRITE, {V2: 100})
        await traffic.until_only(V2, 50)
    assert traffic.failures == []


@contextlib.asynccontextmanager
async def listing_type(kube: Kube, *, list_name: str, readable: bool) -> AsyncIterator[Resource]:
    """A type of its own with a weighted list below its spec, as GKE's InferenceModel has it."""
    group = f"t{secrets.token_hex(3)}.example.com"
    entry = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "minimum": 1}},
    }
    spec = {
        "type": "object",
        "properties": {
            "modelName": {"type": "string"},
            list_name: {"type": "array", "maxItems": 10, "items": entry},
        },
    }
    version = {
        # Not the version of upstream's InferenceModel: it is to be discovered.
        "name": "v1beta3",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    resource = Resource(group, "v1beta3", "inferencemodels", "InferenceModel")
    name = f"{resource.plural}.{group}"
    rights: list[Object] = []
    if readable:
        verbs = ["get", "list", "watch", "patch"]
        rule = {"apiGroups": [group], "resources": [resource.plural], "verbs": verbs}
        api = "rbac.authorization.k8s.io"
        ref = {"apiGroup": api, "kind": "ClusterRole", "name": name}
        rights = [
            {
                "apiVersion": f"{api}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": name},
                "rules": [rule],
            },
            {
                "apiVersion": f"{api}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "roleRef": ref,
                "subjects": [PLUGIN],
            },
        ]
    crd = {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": name},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": resource.kind, "plural": resource.plural},
            "versions": [version],
        },
    }
    for item in (*rights, crd):
        await create(kube, item)
    try:
        await established(kube, [name])
        yield resource
    finally:
        await kube.delete(CRD, name)
        for item in rights:
            plural = f"{item['kind'].lower()}s"
            kind = Resource(
                "rbac.authorization.k8s.io", "v1", plural, item["kind"], namespaced=False
            )
            await kube.delete(kind, name)


def versions(obj: Object) -> dict[str, int | None]:
    return {entry["name"]: entry.get("weight") for entry in obj["spec"].get("versions") or []}


async def until_versions(
    scenario: Scenario, resource: Resource, expected: dict[str, int | None]
) -> None:
    await scenario.until(
        resource,
        "travel",
        lambda obj: obj is not None and versions(obj) == expected,
        what=f"versions {expected}",
    )


async def create_model(scenario: Scenario, resource: Resource) -> None:
    body = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": "travel"},
        "spec": {"modelName": "travelhelper", "versions": [{"name": V1}]},
    }
    await scenario.kube.create(resource, body, scenario.namespace)


def list_config(resource: Resource, name: str = "travel") -> Object:
    found = {"kind": resource.kind, "group": resource.group, "name": name}
    return {"modelList": found | {"listPath": "spec.versions"}}


async def test_a_list_at_a_configured_path_is_promoted_and_aborted(scenario: Scenario) -> None:
    await pool_without_traffic(scenario)
    async with listing_type(scenario.kube, list_name="versions", readable=True) as resource:
        await create_model(scenario, resource)
        await scenario.apply(release(list_config(resource)))
        await scenario.until_healthy(RELEASE)
        await until_versions(scenario, resource, {V1: None})
        await scenario.revise(RELEASE, revision(V2))
        await scenario.until_paused(RELEASE, 10)
        await until_versions(scenario, resource, {V1: 90, V2: 10})
        await scenario.argo("abort", RELEASE)
        await until_versions(scenario, resource, {V1: 100})
        await scenario.until_aborted(RELEASE)
        await scenario.argo("retry", "rollout", RELEASE)
        await scenario.until_paused(RELEASE, 10)
        await scenario.argo("promote", RELEASE, "--full")
        await scenario.until_healthy(RELEASE)
        await until_versions(scenario, resource, {V2: 100})


async def test_a_list_that_the_live_type_lacks_is_refused(scenario: Scenario) -> None:
    """GKE's path on upstream's InferenceModel: the API server would drop what is written there."""
    await scenario.apply(m.inference_model("loramodel", "travelhelper", POOL, **{V1: None}))
    await scenario.apply(release(list_config(INFERENCEMODEL, "loramodel")))
    await scenario.until_event(
        "InvalidConfig",
        "InferenceModel (inference.networking.x-k8s.io/v1alpha2) of this cluster has no "
        "spec.versions (spec has criticality, modelName, poolRef, targetModels)",
    )
    model = await scenario.get(INFERENCEMODEL, "loramodel")
    assert targets(model) == {V1: None}
    assert COMMANDED_ANNOTATION not in (model["metadata"].get("annotations") or {})
    status = (await scenario.get(ROLLOUT, RELEASE))["status"]
    assert status.get("phase") != "Healthy"


async def test_a_type_that_the_server_may_not_read_is_refused_with_what_it_needs(
    scenario: Scenario,
) -> None:
    async with listing_type(scenario.kube, list_name="versions", readable=False) as resource:
        await scenario.apply(release(list_config(resource)))
        await scenario.until_event(
            "InvalidConfig", f"may not read inferencemodels.{resource.group}"
        )


async def test_a_list_is_found_once_its_type_has_it(scenario: Scenario) -> None:
    """A newer definition is installed while the Rollout is refused: it goes on by itself."""
    async with listing_type(scenario.kube, list_name="targets", readable=True) as resource:
        await scenario.kube.create(
            resource,
            {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"name": "travel"},
                "spec": {"modelName": "travelhelper"},
            },
            scenario.namespace,
        )
        await scenario.apply(release(list_config(resource)))
        await scenario.until_event("InvalidConfig", "has no spec.versions")
        path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"
        await scenario.kube.patch(
            CRD,
            f"{resource.plural}.{resource.group}",
            [{"op": "move", "from": f"{path}/targets", "path": f"{path}/versions"}],
        )
        await until_versions(scenario, resource, {V1: 100})
        await scenario.until_healthy(RELEASE)
