"""Objects of the end-to-end scenarios, as the API server takes them.

Builders return plain dictionaries with what the scenarios need and nothing else; what a user
would write stands in manifests/examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    Resource,
)
from inference_common.names import DESTINATION_ANNOTATION, IDENTITY_ANNOTATION, PLUGIN_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

Object = dict[str, Any]

GATEWAY: Final = "inference-gateway"
GATEWAY_CLASS: Final = "inference-rollouts-local"
LISTENER_PORT: Final = 8080
MODEL_PORT: Final = 8000
PICKER_PORT: Final = 9002
PICKER_METRICS_PORT: Final = 9090
NOOP: Final = "inference-rollouts/noop"
SIMULATED_VLLM: Final = "inference-rollouts/simulated-vllm"
PICKER: Final = "inference-rollouts/picker"
PROBER: Final = "inference-rollouts/prober"

PROBED: Final = {"periodSeconds": 1, "timeoutSeconds": 10}
"""Often, since scenarios wait for it; patient, since a busy machine is no fault of a pod."""
POD_IP_ENV: Final = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def gateway() -> Object:
    """A Gateway with one HTTP listener."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": GATEWAY},
        "spec": {
            "gatewayClassName": GATEWAY_CLASS,
            "listeners": [{"name": "llm", "protocol": "HTTP", "port": LISTENER_PORT}],
        },
    }


def pool_ref(
    name: str,
    weight: int | None = None,
    resource: Resource = INFERENCEPOOL,
    port: int | None = None,
) -> Object:
    """A backendRef to an InferencePool; no weight key at all where none is given."""
    return _without_none(
        {"group": resource.group, "kind": "InferencePool", "name": name}
        | {"port": port, "weight": weight}
    )


def service_ref(name: str, weight: int | None = None) -> Object:
    """A backendRef to a Service's model port."""
    return _without_none({"name": name, "port": MODEL_PORT, "weight": weight})


def route(name: str, *refs: Object, rule: str | None = None) -> Object:
    """An HTTPRoute of the scenario's Gateway with one rule for /v1."""
    matches = [{"path": {"type": "PathPrefix", "value": "/v1"}}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": GATEWAY}],
            "rules": [_without_none({"name": rule, "matches": matches, "backendRefs": list(refs)})],
        },
    }


def pool(
    name: str,
    selector: dict[str, str],
    *,
    picker: str = "picker",
    resource: Resource = INFERENCEPOOL,
) -> Object:
    """An InferencePool of either API group; ``picker`` is the name of the picker's Service."""
    if resource is INFERENCEPOOL:
        spec: Object = {
            "selector": {"matchLabels": selector},
            "targetPorts": [{"number": MODEL_PORT}],
            "endpointPickerRef": {"name": picker, "port": {"number": PICKER_PORT}},
        }
    else:
        spec = {"selector": selector, "targetPortNumber": MODEL_PORT}
        spec["extensionRef"] = {"name": picker, "portNumber": PICKER_PORT}
    return {
        "apiVersion": resource.api_version,
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": spec,
    }


def picker(name: str, pool_name: str, *, resource: Resource = INFERENCEPOOL) -> list[Object]:
    """Deployment and Service of an endpoint picker for one pool, with the rights it needs."""
    args = ["--pool", pool_name, "--namespace", "$(NAMESPACE)", "--pool-group", resource.group]
    args += ["--address", f"$(POD_IP):{PICKER_PORT}", "--metrics-address", "$(POD_IP):9090"]
    namespace = {
        "name": "NAMESPACE",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
    }
    container = {
        "name": "picker",
        "image": PICKER,
        "args": args,
        "env": [POD_IP_ENV, namespace],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9090}, **PROBED},
    }
    return [
        deployment(name, container, labels={"app": name}, service_account="picker"),
        service(name, {"app": name}, port=PICKER_PORT),
    ]


def picker_rights() -> list[Object]:
    """ServiceAccount, Role and RoleBinding that every picker of a namespace uses."""
    verbs = ["get", "list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
        {"apiGroups": ["argoproj.io"], "resources": ["rollouts"], "verbs": verbs},
    ]
    kinds = ["inferencepools", "inferencemodels", "inferencemodelrewrites", "inferenceobjectives"]
    groups = (INFERENCEPOOL.group, INFERENCEPOOL_X.group, INFERENCEMODELREWRITE.group)
    rules += [{"apiGroups": [group], "resources": kinds, "verbs": verbs} for group in groups]
    return _rights("picker", rules)


def prober_rights() -> list[Object]:
    """ServiceAccount, Role and RoleBinding of the adapter prober."""
    verbs = ["get", "list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
        {"apiGroups": ["argoproj.io"], "resources": ["rollouts"], "verbs": verbs},
    ]
    rules += [
        {"apiGroups": [group], "resources": ["inferencepools"], "verbs": verbs}
        for group in (INFERENCEPOOL.group, INFERENCEPOOL_X.group)
    ]
    return _rights("prober", rules)


def service(name: str, selector: dict[str, str], port: int = MODEL_PORT) -> Object:
    """A Service of one port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": [{"name": "main", "port": port}]},
    }


def deployment(
    name: str,
    container: Object,
    *,
    labels: dict[str, str],
    replicas: int = 1,
    service_account: str | None = None,
) -> Object:
    """A Deployment of one container."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": pod_template(container, labels=labels, service_account=service_account),
        },
    }


def noop(name: str = "noop", version: str = "1") -> Object:
    """A container without a process, ready at once; the version makes templates differ."""
    return {"name": name, "image": NOOP, "env": [{"name": "VERSION", "value": version}]}


def simulated_vllm(version: str, *extra: str, adapters: tuple[str, ...] = ()) -> Object:
    """A simulated vLLM that serves ``mymodel`` and names its version in every answer."""
    args = ["--host", "$(POD_IP)", "--port", str(MODEL_PORT), "--served-model-name", "mymodel"]
    args += ["--version", version]
    if adapters:
        args += ["--lora-modules", *[f"{name}=/adapters/{name}" for name in adapters]]
    return {
        "name": "vllm",
        "image": SIMULATED_VLLM,
        "args": [*args, *extra],
        "env": [POD_IP_ENV],
        "ports": [{"name": "http", "containerPort": MODEL_PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, **PROBED},
    }


def prober(pool_name: str, name: str, rollout_name: str, *extra: str) -> Object:
    """The container of a release Rollout: Ready when the pool's pods serve the name."""
    args = ["--pool", pool_name, "--namespace", "$(NAMESPACE)", "--name", name]
    args += ["--rollout", rollout_name, "--address", "$(POD_IP):8080", *extra]
    namespace = {
        "name": "NAMESPACE",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
    }
    hash_env = {
        "name": "POD_TEMPLATE_HASH",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['rollouts-pod-template-hash']"}},
    }
    return {
        "name": "prober",
        "image": PROBER,
        "args": args,
        "env": [POD_IP_ENV, namespace, hash_env],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, **PROBED},
    }


def pod_template(
    container: Object,
    *,
    labels: dict[str, str],
    annotations: dict[str, str] | None = None,
    service_account: str | None = None,
) -> Object:
    """A pod template of one container."""
    spec: Object = {"containers": [container], "terminationGracePeriodSeconds": 20}
    if service_account is not None:
        spec["serviceAccountName"] = service_account
    port = {SIMULATED_VLLM: MODEL_PORT, PICKER: PICKER_METRICS_PORT}.get(container["image"])
    scrape = {"prometheus.io/scrape": "true", "prometheus.io/port": str(port)} if port else {}
    wanted = scrape | (annotations or {})
    return {"metadata": {"labels": labels, "annotations": wanted}, "spec": spec}


def destination(name: str, identity: str | None = None) -> dict[str, str]:
    """Annotations of a pod template that names its destination."""
    found = {DESTINATION_ANNOTATION: name}
    if identity is not None:
        found[IDENTITY_ANNOTATION] = identity
    return found


def steps(*weights: int) -> list[Object]:
    """Canary steps: each weight followed by a pause without an end."""
    found: list[Object] = []
    for weight in weights:
        found += [{"setWeight": weight}, {"pause": {}}]
    return found


def rollout(
    name: str,
    template: Object,
    config: Object,
    *,
    replicas: int = 1,
    canary_steps: list[Object] | None = None,
    routing: Object | None = None,
    **canary: Any,
) -> Object:
    """A Rollout whose traffic the plugin routes; extra keywords go into the canary strategy.

    ``routing`` goes into its trafficRouting.
    """
    strategy: Object = {
        "steps": steps(10, 50) if canary_steps is None else canary_steps,
        "trafficRouting": {"plugins": {PLUGIN_NAME: config}} | (routing or {}),
        # The defaults of 30 s would keep each scenario waiting for old pods.
        "scaleDownDelaySeconds": 5,
        "abortScaleDownDelaySeconds": 5,
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 5,
            "selector": {"matchLabels": template["metadata"]["labels"]},
            "template": template,
            "strategy": {"canary": strategy | canary},
        },
    }


def inference_model(name: str, model_name: str, pool_name: str, **targets: int | None) -> Object:
    """An InferenceModel whose targets are given as keywords with ``_`` for ``-``."""
    found = [
        _without_none({"name": target.replace("_", "-"), "weight": weight})
        for target, weight in targets.items()
    ]
    return {
        "apiVersion": INFERENCEMODEL.api_version,
        "kind": "InferenceModel",
        "metadata": {"name": name},
        "spec": {
            "modelName": model_name,
            "criticality": "Critical",
            "poolRef": {"group": INFERENCEPOOL_X.group, "kind": "InferencePool", "name": pool_name},
            "targetModels": found,
        },
    }


def model_rewrite(
    name: str,
    model_name: str,
    pool_name: str,
    targets: Mapping[str, int | None],
    *,
    resource: Resource = INFERENCEMODELREWRITE,
    pool_group: str = INFERENCEPOOL_X.group,
) -> Object:
    """An InferenceModelRewrite of one rule; no weight key where a target's weight is None."""
    found = [
        _without_none({"modelRewrite": target, "weight": weight})
        for target, weight in targets.items()
    ]
    matches = [{"model": {"type": "Exact", "value": model_name}}]
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": {
            "poolRef": {"group": pool_group, "kind": "InferencePool", "name": pool_name},
            "rules": [{"matches": matches, "targets": found}],
        },
    }


def _rights(name: str, rules: list[Object]) -> list[Object]:
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": {"name": name},
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [subject],
        },
    ]


def _without_none(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if value is not None}
