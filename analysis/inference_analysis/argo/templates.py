"""AnalysisTemplates, and the rights that their Jobs need, as the API server takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from inference_analysis.argo.protocol import (
    CONSECUTIVE_SUCCESS_LIMIT,
    COUNT,
    FAILURE_LIMIT,
    error_limit,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_analysis.argo.settings import AnalysisDocument

Object = dict[str, Any]
METRIC: Final = "analysis"
"""Short: a Job is named UID.METRIC.N, and 63 characters is the most."""
ACCOUNT: Final = "inference-analysis"
IMAGE: Final = "inference-rollouts/analysis:0.1.0"
SECRETS: Final = "/etc/inference-analysis"
"""Where the Secret with Prometheus' credentials is mounted."""
_WEB_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be generated."""

    name: str
    namespace: str = ""
    rollout: str = ""
    image: str = IMAGE
    secret: str = ""
    service: str = ""
    """URL of ``analysis serve``, for the Web provider."""


class _Text(str):
    """Text of several lines, written as a block."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Lists are indented under their key."""
        return super().increase_indent(flow, indentless=False)


_Dumper.add_representer(
    _Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def yaml_of(*objects: Object) -> str:
    """The objects as one file for ``kubectl apply -f``."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=100)


def job_template(wanted: Wanted, values: Mapping[str, Any], *, background: bool) -> Object:
    """A Job metric that becomes Successful, Failed or Inconclusive (``protocol``).

    One metric alone: any other one that ends would end this one's Job in the middle. For
    background analysis the same Job goes on until it fails or the Rollout is done with it.
    """
    metric = {
        "name": METRIC,
        "interval": "1s",
        "count": COUNT,
        "failureLimit": FAILURE_LIMIT,
        "consecutiveSuccessLimit": CONSECUTIVE_SUCCESS_LIMIT,
        "inconclusiveLimit": 0,
        "provider": {"job": {"spec": _job(wanted, values)}},
    }
    name = f"{wanted.name}-background" if background else wanted.name
    return _template(name, wanted, values, metric, args=("canary-hash", "stable-hash"))


def web_template(
    wanted: Wanted, values: Mapping[str, Any], settings: AnalysisDocument, *, background: bool
) -> Object:
    """A Web metric on ``analysis serve``; it has all three outcomes by itself.

    It is asked every ``look.every`` for gross harm, and the last time for the look, which may wait
    by Errors (``protocol``). In the background it is asked until the Rollout is done with it.
    """
    metric: Object = {
        "name": METRIC,
        "interval": f"{settings.look.every:g}s",
        "failureLimit": 0,
        "inconclusiveLimit": 0,
        "successCondition": 'result.action in ["proceed", "wait"]',
        "failureCondition": 'result.action == "abort"',
        "provider": {
            "web": {
                "method": "POST",
                "url": f"{wanted.service.rstrip('/')}/v1/analysis",
                "timeoutSeconds": _WEB_TIMEOUT_S,
                "jsonPath": "{$}",
                "jsonBody": {
                    "namespace": "{{args.namespace}}",
                    "rollout": "{{args.rollout}}",
                    "canaryHash": "{{args.canary-hash}}",
                    "stableHash": "{{args.stable-hash}}",
                    "metric": METRIC,
                    # Where Prometheus is, and what opens it, is the server's own affair.
                    "config": {k: v for k, v in values.items() if k != "prometheus"},
                },
            }
        },
    }
    if not background:
        metric["count"] = math.ceil(settings.look.after / settings.look.every) + 1
        metric["consecutiveErrorLimit"] = error_limit(settings.retry_for, settings.max_wait)
    name = f"{wanted.name}-background" if background else wanted.name
    args = ("canary-hash", "stable-hash", "namespace", "rollout")
    return _template(name, wanted, values, metric, args=args)


def rights(wanted: Wanted, *, cluster: bool = False) -> list[Object]:
    """The account of the Jobs, or of ``analysis serve``, and what it may do."""
    rules = [
        {"apiGroups": ["argoproj.io"], "resources": ["rollouts"], "verbs": ["get"]},
        {"apiGroups": ["argoproj.io"], "resources": ["analysisruns"], "verbs": ["get", "list"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        # The adapter that each revision stands for.
        {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["list"]},
        # The ledger and the verdicts; the team's defaults.
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "verbs": ["get", "create", "update"],
        },
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    ]
    kind = "ClusterRole" if cluster else "Role"
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": ACCOUNT}
    if cluster and wanted.namespace:
        subject["namespace"] = wanted.namespace
    metadata = _metadata(ACCOUNT, "" if cluster else wanted.namespace)
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": _metadata(ACCOUNT, wanted.namespace),
        },
        {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": kind, "name": ACCOUNT},
            "subjects": [subject],
        },
    ]


def step(wanted: Wanted, provider: Literal["job", "web"]) -> Object:
    """What stands in the Rollout's steps, or under ``analysis`` for a background run."""
    args: list[Object] = [
        {"name": "canary-hash", "valueFrom": {"podTemplateHashValue": "Latest"}},
        {"name": "stable-hash", "valueFrom": {"podTemplateHashValue": "Stable"}},
    ]
    if provider == "web":
        for name, path in (("namespace", "metadata.namespace"), ("rollout", "metadata.name")):
            args.append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    return {"templates": [{"templateName": wanted.name}], "args": args}


def _template(
    name: str, wanted: Wanted, values: Mapping[str, Any], metric: Object, *, args: tuple[str, ...]
) -> Object:
    spec: Object = {"args": [{"name": arg} for arg in args]}
    if values.get("ledger") == "shadow":
        # Measured and shown, without effect on the Rollout and on the live ledger.
        spec["dryRun"] = [{"metricName": METRIC}]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": _metadata(name, wanted.namespace),
        "spec": spec | {"metrics": [metric]},
    }


def _job(wanted: Wanted, values: Mapping[str, Any]) -> Object:
    def from_label(name: str, path: str) -> Object:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    config = yaml.safe_dump(dict(values), sort_keys=False, width=100)
    container: Object = {
        "name": "analysis",
        "image": wanted.image,
        "args": ["run"],
        "env": [
            from_label("POD_NAMESPACE", "metadata.namespace"),
            from_label("JOB_NAME", "metadata.labels['job-name']"),
            {"name": "CANARY_HASH", "value": "{{args.canary-hash}}"},
            {"name": "STABLE_HASH", "value": "{{args.stable-hash}}"},
            {"name": "ANALYSIS_CONFIG", "value": _Text(config)},
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": ACCOUNT,
        "containers": [container],
    }
    if wanted.secret:
        container["volumeMounts"] = [{"name": "access", "mountPath": SECRETS, "readOnly": True}]
        pod["volumes"] = [{"name": "access", "secret": {"secretName": wanted.secret}}]
    return {
        "backoffLimit": 0,
        # A drained node is no verdict: the Job starts another pod, which goes on.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                }
            ]
        },
        "template": {"spec": pod},
    }


def _metadata(name: str, namespace: str) -> Object:
    return {"name": name} | ({"namespace": namespace} if namespace else {})
