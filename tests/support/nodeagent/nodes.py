"""Node and Lease objects of this node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from support.nodeagent.moments import micro_text, text_of

if TYPE_CHECKING:
    import datetime as dt

LEASE_NAMESPACE: Final = "kube-node-lease"
LEASE_DURATION_S: Final = 40
"""A kubelet's default, which the node lifecycle controller's grace period is made for."""
LEASE_RENEWAL_S: Final = 10.0

CAPACITY: Final = {
    "cpu": "64",
    "memory": "256Gi",
    "ephemeral-storage": "256Gi",
    "pods": "1000",
    "nvidia.com/gpu": "64",
}


def node_object(name: str) -> dict[str, Any]:
    """The Node as it is registered: labels that selectors commonly name."""
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "local.inference-rollouts.io/node-agent": "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
    }


def node_status(name: str, address: str, now: dt.datetime) -> dict[str, Any]:
    """``{"status": ...}`` for the status subresource: capacity, address, conditions."""
    healthy = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]
    moment = text_of(now)
    return {
        "status": {
            "capacity": CAPACITY,
            "allocatable": CAPACITY,
            "addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": "containers of this node are local processes",
                    "lastHeartbeatTime": moment,
                    "lastTransitionTime": moment,
                }
                for kind, status, reason in healthy
            ],
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": "",
                "osImage": "no image: local processes",
                "containerRuntimeVersion": "process://1",
                "kubeletVersion": "v1.36.3-node-agent",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        }
    }


def lease_object(name: str, node_uid: str, now: dt.datetime) -> dict[str, Any]:
    """The node's Lease; its renewals are the node's heartbeat (KEP-589)."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}
            ],
        },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": micro_text(now),
        },
    }
