"""What is installed, what Prometheus scrapes, and what the clients read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from inference_common.errors import KubeError, KubeUnreachable
from support.cluster import objects
from support.cluster.client import ClusterClient
from support.cluster.command import status
from support.cluster.layout import Layout
from support.cluster.network import Network
from support.cluster.parts import prometheus_config
from support.repository import MANIFESTS
from support.toolchain import Toolchain

if TYPE_CHECKING:
    from inference_common.kube import Kube, Resource


@pytest.fixture
def tools(tmp_path: Path) -> Toolchain:
    """Stand-ins for the upstream manifests: one object of each kind that matters."""
    argo, gateway = tmp_path / "argo", tmp_path / "gateway"
    argo.mkdir()
    gateway.mkdir()
    (argo / "role.yaml").write_text(
        "kind: ClusterRoleBinding\nmetadata: {name: argo-rollouts}\n---\n"
        "kind: ServiceAccount\nmetadata: {name: argo-rollouts}\n---\n"
        "kind: ConfigMap\nmetadata: {name: argo-rollouts-config}\n"
    )
    (gateway / "crd.yaml").write_text(
        "kind: CustomResourceDefinition\nmetadata: {name: gateways}\n---\n"
        "kind: ValidatingAdmissionPolicy\nmetadata: {name: safe}\n"
    )
    return Toolchain(
        binaries={},
        manifests={"argo-rollouts-manifests": argo, "gateway-api-manifests": gateway},
    )


def test_only_crds_are_taken_for_crds(tools: Toolchain) -> None:
    kinds = {item["kind"] for item in objects.custom_resources(tools)}
    names = {item["metadata"]["name"] for item in objects.custom_resources(tools)}
    assert kinds == {"CustomResourceDefinition"}
    assert {"gateways", "inferencepools.inference.networking.k8s.io"} <= names


def test_namespaces_come_first_and_bindings_last(tools: Toolchain) -> None:
    kinds = [item["kind"] for item in objects.installation(tools)]
    assert kinds[0] == "Namespace"
    assert kinds[-1] == "ClusterRoleBinding"
    assert "ConfigMap" not in kinds  # ours, with the bridge's place, takes its name


def test_namespaced_objects_land_where_kustomize_would_put_them(tools: Toolchain) -> None:
    for item in objects.installation(tools):
        if item["kind"] in {"ServiceAccount", "Role", "RoleBinding"}:
            assert item["metadata"]["namespace"] == "argo-rollouts"
        else:
            assert "namespace" not in item["metadata"]


def test_the_plugin_may_write_weights_and_nothing_of_workloads() -> None:
    rules = [
        rule
        for item in objects.read_folder(MANIFESTS / "base")
        if item["kind"] == "ClusterRole"
        for rule in item["rules"]
    ]
    writes = {
        resource
        for rule in rules
        for resource in rule["resources"]
        if set(rule["verbs"]) - {"get", "list", "watch"}
    }
    assert writes == {
        *("httproutes", "grpcroutes", "inferencepools", "events"),
        *("inferencemodels", "inferencemodelrewrites"),
    }
    assert not any("*" in rule["resources"] + rule["verbs"] for rule in rules)


def test_the_controller_is_told_where_the_bridge_and_the_server_are() -> None:
    found = objects.argo_config(Path("/cache/bridge"), Path("/run/plugin.sock"))
    assert yaml.safe_load(found["data"]["trafficRouterPlugins"]) == [
        {
            "name": "inference-rollouts/router",
            "location": "file:///cache/bridge",
            "args": ["--server", "unix:/run/plugin.sock"],
        }
    ]


class Refusing:
    """An API server that refuses a number of times before it takes an object."""

    def __init__(self, *errors: KubeError) -> None:
        self.errors = list(errors)
        self.created: list[dict[str, Any]] = []

    async def create(self, _resource: Resource, body: dict[str, Any], _namespace: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.created.append(body)


GATEWAY_CLASS = objects.gateway_class()


@pytest.mark.parametrize(
    ("errors", "created"),
    [
        pytest.param([], 1, id="at once"),
        pytest.param([KubeError(404, "NotFound", "page not found")], 1, id="not served yet"),
        pytest.param([KubeUnreachable("slow"), KubeError(503, "", "")], 1, id="too busy"),
        pytest.param([KubeError(409, "AlreadyExists", "")], 0, id="there already"),
    ],
)
async def test_creation_has_patience(errors: list[KubeError], created: int) -> None:
    server = Refusing(*errors)
    kube: Kube = server  # type: ignore[assignment]
    await objects.create(kube, GATEWAY_CLASS)
    assert len(server.created) == created


async def test_creation_reports_what_is_really_wrong() -> None:
    kube: Kube = Refusing(KubeError(422, "Invalid", "spec.x"))  # type: ignore[assignment]
    with pytest.raises(KubeError, match=r"spec\.x"):
        await objects.create(kube, GATEWAY_CLASS)


def test_prometheus_gives_pods_the_labels_that_the_analysis_reads() -> None:
    config = prometheus_config(Layout(Path("/x")), Network(16))
    (pods,) = (job for job in config["scrape_configs"] if job["job_name"] == "pods")
    targets = {rule.get("target_label") for rule in pods["relabel_configs"]}
    assert {"namespace", "pod", "rollouts_pod_template_hash", "__address__"} <= targets
    assert config["global"]["scrape_interval"] == "1s"


def audit_line(user: str, verb: str, resource: str) -> str:
    return json.dumps(
        {
            "user": {"username": user},
            "verb": verb,
            "objectRef": {"resource": resource, "namespace": "n", "name": "o"},
            "responseStatus": {"code": 200},
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
        }
    )


def test_the_audit_log_is_read_by_user_and_from_a_position(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    plugin = "system:serviceaccount:argo-rollouts:inference-rollouts-plugin"
    document = {"audit_log": str(log), "users": {"plugin": plugin}}
    client = ClusterClient(document=document)
    log.write_text(audit_line("admin", "get", "pods") + "\n")
    log.write_text(log.read_text() + audit_line(plugin, "watch", "pods") + "\n")
    position = client.audit_position()
    with log.open("a") as file:
        file.write(audit_line(plugin, "patch", "httproutes") + "\n" + '{"half": ')
    assert [event.verb for event in client.audit()] == ["get", "watch", "patch"]
    assert [event.verb for event in client.audit("plugin")] == ["watch", "patch"]
    (event,) = client.audit("plugin", since=position)
    assert (event.resource, event.namespace, event.name) == ("httproutes", "n", "o")
    assert event.code == 200
    assert event.writes
    assert not client.audit("plugin")[0].writes


def test_without_a_cluster_the_client_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"make up.*exec --"):
        ClusterClient.load(tmp_path)


def test_the_status_of_no_cluster_is_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(Layout(tmp_path)) == 1
    assert capsys.readouterr().out == f"not up: {tmp_path}\n"
