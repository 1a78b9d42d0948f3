"""What runs on the control plane: Argo Rollouts, the plugin, node, gateway, Envoy, Prometheus."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from inference_common.kube import GATEWAYCLASS, NODE, Kube
from support.cluster.component import Component
from support.cluster.network import (
    ENVOY_ADMIN_PORT,
    PLUGIN_METRICS_PORT,
    PROMETHEUS_PORT,
    Network,
)
from support.cluster.objects import GATEWAY_CLASS
from support.cluster.probe import answers_200
from support.gateway.bootstrap import envoy_command
from support.repository import ROOT

if TYPE_CHECKING:
    from support.cluster.layout import Layout
    from support.toolchain import Toolchain

PYTHON_PATH: Final = {"PYTHONPATH": str(ROOT / "tests")}
"""Environment in which ``python -m support.…`` works from any directory."""

_SCRAPE: Final = "__meta_kubernetes_pod_annotation_prometheus_io_"


def argo_rollouts(layout: Layout, network: Network, tools: Toolchain) -> Component:
    """Run the controller. It copies plugins to ``plugin-bin`` in its working directory."""
    argv = (
        tools.binary("rollouts-controller"),
        f"--kubeconfig={layout.kubeconfig('argo-rollouts')}",
        f"--metricsPort={network.argo_metrics_port}",
        f"--healthzPort={network.argo_health_port}",
        "--leader-elect=false",
        "--logformat=json",
    )
    return Component(
        name="argo-rollouts",
        argv=argv,
        cwd=layout.state_dir / "argo-rollouts",
        env={"POD_NAMESPACE": "argo-rollouts"},
        ready=answers_200(f"http://127.0.0.1:{network.argo_health_port}/healthz"),
    )


def plugin(layout: Layout, network: Network) -> Component:
    """Run the plugin server that the bridge inside the controller talks to."""
    argv = (
        _beside_python("inference-rollouts"),
        "plugin",
        "serve",
        "--socket",
        layout.plugin_socket,
        "--metrics-address",
        f"{network.host}:{PLUGIN_METRICS_PORT}",
        "--kubeconfig",
        layout.kubeconfig("plugin"),
        "--prometheus",
        f"http://{network.host}:{PROMETHEUS_PORT}",
    )
    return Component(
        name="plugin", argv=argv, cwd=layout.state_dir, ready=_serves_grpc(layout.plugin_socket)
    )


def node_agent(layout: Layout, network: Network, kube: Kube) -> Component:
    """Run the node: pods as local processes."""

    async def ready() -> bool:
        nodes = (await kube.list(NODE))["items"]
        return any(_condition(node, "Ready") for node in nodes)

    return Component(
        name="node-agent",
        argv=_module("support.nodeagent", layout, network, "node-agent"),
        cwd=layout.state_dir,
        env=PYTHON_PATH,
        ready=ready,
        stop_s=15,
    )


def gateway(layout: Layout, network: Network, kube: Kube) -> Component:
    """Run the gateway controller; Envoy is a component of its own."""

    async def ready() -> bool:
        return _condition(await kube.get(GATEWAYCLASS, GATEWAY_CLASS), "Accepted")

    return Component(
        name="gateway",
        argv=_module("support.gateway", layout, network, "gateway"),
        cwd=layout.state_dir,
        env=PYTHON_PATH,
        ready=ready,
    )


def gateway_bootstrap(layout: Layout, network: Network) -> tuple[str | Path, ...]:
    """Return the command that writes Envoy's bootstrap."""
    return (
        sys.executable,
        "-m",
        "support.gateway",
        "bootstrap",
        "--network",
        network.cidr,
        "--state-dir",
        layout.state_dir,
    )


def envoy(layout: Layout, network: Network) -> Component:
    """Run Envoy on the files that the gateway controller writes."""
    return Component(
        name="envoy",
        argv=tuple(envoy_command(layout.state_dir)),
        cwd=layout.envoy,
        ready=answers_200(f"http://{network.host}:{ENVOY_ADMIN_PORT}/ready"),
    )


def prometheus(layout: Layout, network: Network, tools: Toolchain) -> Component:
    """Run Prometheus, which finds pods by the API server as it would in a cluster."""
    config = layout.state_dir / "prometheus.yaml"
    config.write_text(yaml.safe_dump(prometheus_config(layout, network), sort_keys=False))
    address = f"{network.host}:{PROMETHEUS_PORT}"
    argv = (
        tools.binary("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={layout.state_dir / 'prometheus'}",
        "--storage.tsdb.retention.time=1d",
        f"--web.listen-address={address}",
        "--log.level=warn",
    )
    return Component(
        name="prometheus",
        argv=argv,
        cwd=layout.state_dir,
        ready=answers_200(f"http://{address}/-/ready"),
    )


def prometheus_config(layout: Layout, network: Network) -> dict[str, Any]:
    """Scrape annotated pods, and the cluster's own parts, every second.

    Pods get the labels ``namespace``, ``pod`` and ``rollouts_pod_template_hash``.
    """
    discovery = {"role": "pod", "kubeconfig_file": str(layout.kubeconfig("prometheus"))}
    relabel: list[dict[str, Any]] = [
        {"source_labels": [f"{_SCRAPE}scrape"], "action": "keep", "regex": "true"},
        {
            "source_labels": ["__meta_kubernetes_pod_phase"],
            "action": "drop",
            "regex": "Pending|Succeeded|Failed",
        },
        # A pod is discovered once per declared port; with the same address these become one.
        {
            "source_labels": ["__meta_kubernetes_pod_ip", f"{_SCRAPE}port"],
            "separator": ":",
            "regex": "(.+:[0-9]+)",
            "target_label": "__address__",
        },
        {
            "source_labels": [f"{_SCRAPE}path"],
            "regex": "(.+)",
            "target_label": "__metrics_path__",
        },
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        {
            "source_labels": ["__meta_kubernetes_pod_label_rollouts_pod_template_hash"],
            "target_label": "rollouts_pod_template_hash",
        },
    ]
    own = {
        "argo-rollouts": f"127.0.0.1:{network.argo_metrics_port}",
        "plugin": f"{network.host}:{PLUGIN_METRICS_PORT}",
    }
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {"job_name": "pods", "kubernetes_sd_configs": [discovery], "relabel_configs": relabel},
            *(
                {"job_name": name, "static_configs": [{"targets": [target]}]}
                for name, target in own.items()
            ),
        ],
    }


def _module(module: str, layout: Layout, network: Network, user: str) -> tuple[str | Path, ...]:
    return (
        sys.executable,
        "-m",
        module,
        "--kubeconfig",
        layout.kubeconfig(user),
        "--network",
        network.cidr,
        "--state-dir",
        layout.state_dir,
    )


def _beside_python(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _condition(item: dict[str, Any], kind: str) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def _serves_grpc(socket: Path) -> Any:
    async def probe() -> bool:
        # gRPC starts threads of its own: only the probe's short life has them.
        import grpc.aio  # noqa: PLC0415
        from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return probe
