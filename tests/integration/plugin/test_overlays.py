"""Both overlays as kustomize renders them are what doctor calls a right installation."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from inference_plugin.doctor.checks import Status
from inference_plugin.doctor.controller import (
    check_controller,
    check_mounts,
    check_servers,
    controller_of,
    servers_of,
)
from inference_plugin.doctor.plugin_entry import entry_of, server_of
from support.repository import MANIFESTS
from support.toolchain import ensure

if TYPE_CHECKING:
    from pathlib import Path

Object = dict[str, Any]
# kustomize would fetch these from the network; what the overlays patch of them stands in for them.
ARGO = "https://github.com/argoproj/argo-rollouts//manifests/cluster-install?ref=v1.10.2"
STAND_INS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: argo-rollouts}
spec:
  selector: {matchLabels: {app: argo}}
  template:
    metadata: {labels: {app: argo}}
    spec:
      serviceAccountName: argo-rollouts
      containers: [{name: argo-rollouts, image: "quay.io/argoproj/argo-rollouts:latest"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: argo-rollouts-config}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: argo-rollouts}
"""


def rendered(folder: Path, overlay: str) -> list[Object]:
    for part in ("base", f"overlays/{overlay}"):
        (folder / part).mkdir(parents=True)
        for file in (MANIFESTS / part).iterdir():
            text = file.read_text().replace(ARGO, "../../argo")
            (folder / part / file.name).write_text(text)
    (folder / "argo").mkdir()
    (folder / "argo" / "kustomization.yaml").write_text("resources: [argo.yaml]\n")
    (folder / "argo" / "argo.yaml").write_text(STAND_INS)
    done = subprocess.run(
        [ensure().binary("kubectl"), "kustomize", folder / "overlays" / overlay],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def find(objects: list[Object], kind: str, name: str) -> Object:
    return next(
        each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name
    )


@pytest.mark.parametrize(
    ("overlay", "servers", "target"),
    [
        pytest.param("argo-sidecar", 1, "unix:/run/inference-rollouts/plugin.sock", id="sidecar"),
        pytest.param(
            "argo-deployment",
            2,
            "dns:///inference-rollouts-plugin.argo-rollouts.svc:9443",
            id="deployment",
        ),
    ],
)
def test_an_overlay_renders_to_what_doctor_calls_right(
    tmp_path: Path, overlay: str, servers: int, target: str
) -> None:
    objects = rendered(tmp_path, overlay)
    deployments = [each for each in objects if each["kind"] == "Deployment"]
    found, running = controller_of(deployments), servers_of(deployments)
    entry, checks = entry_of(find(objects, "ConfigMap", "argo-rollouts-config"), "x")
    assert entry is not None
    assert server_of(entry) == target
    checks += [*check_controller(found, "x"), *check_mounts(entry, found, running)]
    held = {"spec": {"holderIdentity": "one", "leaseDurationSeconds": 15}}
    checks += check_servers(running, held, 1.0)
    assert {each.status for each in checks} == {Status.OK}, checks
    assert sum(each.replicas for each in running) == servers


def test_both_ends_of_the_tls_connection_use_certificates_that_are_asked_for(
    tmp_path: Path,
) -> None:
    objects = rendered(tmp_path, "argo-deployment")
    certificates = {
        each["spec"]["secretName"]: each["spec"]
        for each in objects
        if each["kind"] == "Certificate"
    }
    for name in ("argo-rollouts", "inference-rollouts-plugin"):
        volumes = find(objects, "Deployment", name)["spec"]["template"]["spec"]["volumes"]
        secrets = [each["secret"]["secretName"] for each in volumes if "secret" in each]
        assert secrets
        assert set(secrets) <= certificates.keys()
    [server] = servers_of([find(objects, "Deployment", "inference-rollouts-plugin")])
    bridge = certificates["inference-rollouts-bridge-tls"]
    assert server.argument("--tls-client-name") == bridge["commonName"]
    entry, _ = entry_of(find(objects, "ConfigMap", "argo-rollouts-config"), "x")
    host = server_of(entry or {}).removeprefix("dns:///").partition(":")[0]
    assert host in certificates["inference-rollouts-server-tls"]["dnsNames"]
    service = find(objects, "Service", "inference-rollouts-plugin")
    labels = find(objects, "Deployment", "inference-rollouts-plugin")["spec"]["template"][
        "metadata"
    ]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
