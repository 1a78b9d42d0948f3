"""The local cluster as a whole: its parts serve, come back, and may do what they should."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support.cluster.probe import until
from support.cluster.process import start_time
from support.repository import MANIFESTS

if TYPE_CHECKING:
    from pathlib import Path

    from support.cluster.client import AuditEvent, ClusterClient

PLUGIN = "system:serviceaccount:argo-rollouts:inference-rollouts-plugin"
ARGO = "https://github.com/argoproj/argo-rollouts//manifests/cluster-install?ref=v1.10.2"


@pytest.mark.parametrize(
    ("verb", "resource", "expected"),
    [
        ("patch", "httproutes.gateway.networking.k8s.io", "yes"),
        ("patch", "inferencepools.inference.networking.k8s.io", "yes"),
        ("patch", "inferencepools.inference.networking.x-k8s.io", "yes"),
        ("patch", "inferencemodels.inference.networking.x-k8s.io", "yes"),
        ("patch", "inferencemodelrewrites.inference.networking.x-k8s.io", "yes"),
        ("patch", "inferencemodelrewrites.llm-d.ai", "yes"),
        ("patch", "grpcroutes.gateway.networking.k8s.io", "yes"),
        ("watch", "rollouts.argoproj.io", "yes"),
        ("create", "events", "yes"),
        ("patch", "rollouts.argoproj.io", "no"),
        ("get", "secrets", "no"),
        ("delete", "pods", "no"),
    ],
)
async def test_the_plugin_may_do_what_its_role_says(
    cluster: ClusterClient, verb: str, resource: str, expected: str
) -> None:
    # kubectl exits with 1 after a "no".
    command = ["auth", "can-i", verb, resource, "--all-namespaces", "--as", PLUGIN]
    process = await asyncio.create_subprocess_exec(
        cluster.document["bin"]["kubectl"],
        *command,
        env=cluster.environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert out.decode().split()[-1] == expected


async def test_every_custom_resource_is_served(cluster: ClusterClient) -> None:
    found = await cluster.kubectl("api-resources", "--no-headers", "--output=name")
    assert {
        "rollouts.argoproj.io",
        "analysisruns.argoproj.io",
        "httproutes.gateway.networking.k8s.io",
        "grpcroutes.gateway.networking.k8s.io",
        "gateways.gateway.networking.k8s.io",
        "inferencepools.inference.networking.k8s.io",
        "inferencepools.inference.networking.x-k8s.io",
        "inferencemodels.inference.networking.x-k8s.io",
        "inferencemodelrewrites.inference.networking.x-k8s.io",
        "inferencemodelrewrites.llm-d.ai",
        "inferenceobjectives.inference.networking.x-k8s.io",
        "inferenceobjectives.llm-d.ai",
    } <= set(found.split())


async def test_versions_are_those_of_the_modules(cluster: ClusterClient) -> None:
    version = json.loads(await cluster.kubectl("version", "--output=json"))
    assert version["serverVersion"]["gitVersion"] == "v1.36.3"
    assert "v1.10.2" in await cluster.argo("version")


async def test_requests_are_counted_by_user(cluster: ClusterClient) -> None:
    position = cluster.audit_position()
    await cluster.kubectl("get", "configmap", "argo-rollouts-config", "-n", "argo-rollouts")

    def asked(event: AuditEvent) -> bool:
        return event.name == "argo-rollouts-config" and event.verb == "get"

    (event,) = filter(asked, await cluster.audited("admin", since=position, last=asked))
    assert (event.resource, event.namespace, event.code) == ("configmaps", "argo-rollouts", 200)
    assert not event.writes


async def test_prometheus_scrapes_the_plugin_and_its_configuration_is_valid(
    cluster: ClusterClient,
) -> None:
    async with httpx.AsyncClient(base_url=cluster.prometheus) as client:

        async def scraped() -> bool:
            answer = await client.get("/api/v1/query", params={"query": 'up{job="plugin"}'})
            found: list[dict[str, Any]] = answer.json()["data"]["result"]
            return [item["value"][1] for item in found] == ["1"]

        assert await until(scraped, 180)
    process = await asyncio.create_subprocess_exec(
        cluster.document["bin"]["promtool"],
        *("check", "config", str(cluster.state_dir / "prometheus.yaml")),
    )
    assert await process.wait() == 0


async def test_a_component_that_is_killed_comes_back(cluster: ClusterClient) -> None:
    first = cluster.signal("prometheus", signal.SIGKILL)

    async def ready_again() -> bool:
        pid = cluster.pid("prometheus")
        if pid == first or start_time(pid) is None:
            return False
        async with httpx.AsyncClient(base_url=cluster.prometheus) as client:
            return (await client.get("/-/ready")).is_success

    assert await until(ready_again, 180)


async def test_the_overlay_adds_the_server_and_the_bridge_to_the_controller(
    cluster: ClusterClient, tmp_path: Path
) -> None:
    """Rendered with a small Deployment in place of Argo's own manifests, which need the network."""
    folder = tmp_path / "overlays" / "argo-sidecar"
    (tmp_path / "argo").mkdir()
    folder.mkdir(parents=True)
    for file in (MANIFESTS / "overlays" / "argo-sidecar").iterdir():
        text = file.read_text()
        (folder / file.name).write_text(text.replace(ARGO, "../../argo"))
    (tmp_path / "base").mkdir()
    for file in (MANIFESTS / "base").iterdir():
        (tmp_path / "base" / file.name).write_text(file.read_text())
    (tmp_path / "argo" / "kustomization.yaml").write_text("resources: [argo.yaml]\n")
    (tmp_path / "argo" / "argo.yaml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: argo-rollouts}\n"
        "spec:\n"
        "  selector: {matchLabels: {app: argo}}\n"
        "  template:\n"
        "    metadata: {labels: {app: argo}}\n"
        "    spec: {containers: [{name: argo-rollouts, image: x}]}\n"
        "---\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: argo-rollouts-config}\n"
        "---\n"
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: argo-rollouts}\n"
    )
    answer = await cluster.kubectl(
        "apply", "--kustomize", str(folder), "--dry-run=server", "--output=json"
    )
    items = json.loads(answer)["items"]
    (pod,) = (i["spec"]["template"]["spec"] for i in items if i["kind"] == "Deployment")
    assert [c["name"] for c in pod["initContainers"]] == ["inference-rollouts-bridge"]
    assert {c["name"] for c in pod["containers"]} == {"argo-rollouts", "inference-rollouts-plugin"}
    shared = {
        mount["name"]
        for container in pod["containers"]
        for mount in container["volumeMounts"]
        if mount["mountPath"] == "/run/inference-rollouts"
    }
    assert shared == {"inference-rollouts-socket"}
