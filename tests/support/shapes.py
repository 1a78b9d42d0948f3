"""Workloads in the shapes of other operators, and Rollouts that take their template from one.

LeaderWorkerSet and KServe are not installed here: what counts for the plugin is how they label
their pods and name their pools, and that stands here as they do it.
"""

from __future__ import annotations

from typing import Any, Final

from support import manifests as m

Object = dict[str, Any]

LWS: Final = "leaderworkerset.sigs.k8s.io"
"""Prefix of LeaderWorkerSet's labels (lws api/leaderworkerset/v1/leaderworkerset_types.go)."""


def from_workload(rollout: Object, kind: str, *, scale_down: str | None = None) -> Object:
    """The Rollout with a workloadRef to an object of its own name in place of its template.

    A Deployment brings the selector as well; a PodTemplate has none, so that the Rollout's stays.
    """
    spec = dict(rollout["spec"])
    del spec["template"]
    if kind == "Deployment":
        del spec["selector"]
    version = "apps/v1" if kind == "Deployment" else "v1"
    reference = {"apiVersion": version, "kind": kind, "name": rollout["metadata"]["name"]}
    if scale_down is not None:
        reference["scaleDown"] = scale_down
    return {**rollout, "spec": {**spec, "workloadRef": reference}}


def pod_template_object(name: str, template: Object) -> Object:
    """A core/v1 PodTemplate: the template is not under spec."""
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": name},
        "template": template,
    }


def workload(kind: str, name: str, template: Object) -> Object:
    """A Deployment of one pod, or a PodTemplate."""
    if kind == "PodTemplate":
        return pod_template_object(name, template)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": template["metadata"]["labels"]},
            "template": template,
        },
    }


def leader_worker_set(name: str, leader: Object, revision: str) -> list[Object]:
    """The StatefulSets that a LeaderWorkerSet of one group of two pods makes.

    Every pod carries the set's name and its index in the group; only the leader (index 0) answers
    requests, the worker runs a part of the model for it.
    """
    labels = {
        f"{LWS}/name": name,
        f"{LWS}/group-index": "0",
        f"{LWS}/template-revision-hash": revision,
    }
    return [
        _stateful_set(name, leader, labels | {f"{LWS}/worker-index": "0"}),
        _stateful_set(f"{name}-0", m.noop("worker"), labels | {f"{LWS}/worker-index": "1"}),
    ]


def leaders(name: str) -> Object:
    """The pool of a LeaderWorkerSet: its leaders alone."""
    return m.pool(name, {f"{LWS}/name": name, f"{LWS}/worker-index": "0"})


def llm_inference_service(name: str, container: Object) -> list[Object]:
    """What KServe makes of an LLMInferenceService: a Deployment and a pool, by its names.

    The labels are those of kserve's llmisvc/workload_single_node.go, the names of pool and picker
    those of its default router configuration.
    """
    labels = {
        "app.kubernetes.io/component": "llminferenceservice-workload",
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/part-of": "llminferenceservice",
        "kserve.io/component": "workload",
        "llm-d.ai/role": "both",
    }
    selector = {key: labels[key] for key in ("app.kubernetes.io/name", "kserve.io/component")}
    picker = {
        "app.kubernetes.io/component": "llminferenceservice-router-scheduler",
        "app.kubernetes.io/name": name,
    }
    return [
        m.deployment(f"{name}-kserve", container, labels=labels),
        m.deployment(f"{name}-kserve-router-scheduler", m.noop(), labels=picker),
        m.service(f"{name}-epp-service", picker, m.PICKER_PORT),
        m.pool(f"{name}-inference-pool", selector, picker=f"{name}-epp-service"),
    ]


def _stateful_set(name: str, container: Object, labels: dict[str, str]) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": name,
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": m.pod_template(container, labels=labels),
        },
    }
