"""``plugin doctor`` on a real API server: the healthy installation, and each fault in turn."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from inference_common.kube import (
    CONFIGMAP,
    DEPLOYMENT,
    HTTPROUTE,
    LEASE,
    ROLLOUT,
    PatchKind,
    Resource,
)
from support.cluster.layout import Layout
from support.deployments import hash_addressed
from support.repository import MANIFESTS
from support.scenario import TIMEOUT_S

if TYPE_CHECKING:
    from support.scenario import Object, Scenario

SIDECAR = MANIFESTS / "overlays" / "argo-sidecar"
ACCOUNT = Resource("", "v1", "serviceaccounts", "ServiceAccount")
PLUGIN = "/spec/strategy/canary/trafficRouting/plugins/inference-rollouts~1router"


async def doctor(scenario: Scenario, *arguments: str) -> tuple[int, dict[str, Object]]:
    """The exit code, and the checks by name; of several with one name the worst counts."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("inference-rollouts")),
        *("plugin", "doctor", "--json"),
        *("--argo-namespace", scenario.namespace, "--namespace", scenario.namespace),
        *("--kubeconfig", scenario.cluster.kubeconfig),
        *("--socket", str(Layout(scenario.cluster.state_dir).plugin_socket)),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode is not None
    assert out, err.decode()
    found: dict[str, Object] = {}
    for check in json.loads(out):
        if found.get(check["name"], {}).get("status") != "fail":
            found[check["name"]] = check
    return process.returncode, found


async def install(scenario: Scenario) -> None:
    """What the overlay makes of Argo's Deployment, as objects without pods, in the namespace."""
    text = await asyncio.to_thread((SIDECAR / "config.yaml").read_text)
    deployment = yaml.safe_load(await asyncio.to_thread((SIDECAR / "sidecar.yaml").read_text))
    labels = {"app": "argo"}
    spec = deployment["spec"]
    spec |= {"replicas": 0, "selector": {"matchLabels": labels}}
    spec["template"]["metadata"] = {"labels": labels}
    pod = spec["template"]["spec"]
    pod["serviceAccountName"] = "argo-rollouts"
    pod["containers"][0]["image"] = "quay.io/argoproj/argo-rollouts:v1.10.2"
    args = pod["containers"][1]["args"]
    [named] = [arg for arg in args if arg.startswith("--lease=")]
    args[args.index(named)] = f"--lease={scenario.namespace}/plugin"
    lease = {
        "holderIdentity": "plugin-0",
        "leaseDurationSeconds": 3600,
        "renewTime": datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    held = {"metadata": {"name": "plugin"}, "spec": lease}
    await scenario.kube.create(LEASE, held, scenario.namespace)
    await scenario.apply(yaml.safe_load(text), deployment)
    await scenario.kube.create(ACCOUNT, {"metadata": {"name": "argo-rollouts"}}, scenario.namespace)


# The server's own account in this cluster, which manifests/base gives its rights.
RIGHTS = ("--service-account", "argo-rollouts/inference-rollouts-plugin")


async def test_a_healthy_installation_has_nothing_to_remedy(scenario: Scenario) -> None:
    await install(scenario)
    await hash_addressed(scenario)
    await scenario.until_accepted("chat")
    code, found = await doctor(scenario, "--strict", *RIGHTS)
    assert {name: check["status"] for name, check in found.items()} == {
        "API server": "ok",
        "types": "ok",
        "controller": "ok",
        "plugin entry": "ok",
        "mounts": "ok",
        "rights": "ok",
        "several servers": "ok",
        "server": "ok",
        "bridge": "ok",
        "rollouts": "ok",
    }
    assert code == 0
    assert found["rollouts"]["found"] == "1 Rollout without a remark"
    assert "v1.36.3" in found["API server"]["found"]


async def patch(scenario: Scenario, resource: Resource, name: str, *operations: Object) -> None:
    await scenario.kube.patch(resource, name, list(operations), scenario.namespace)


async def test_each_fault_of_the_installation_is_named_with_its_remedy(scenario: Scenario) -> None:
    code, found = await doctor(scenario)
    assert code == 2
    assert found["plugin entry"]["status"] == "fail"
    assert "does not exist" in found["plugin entry"]["found"]
    assert (found["controller"]["status"], found["rights"]["status"]) == ("warn", "skipped")

    await install(scenario)
    # The account of the namespace's own Deployment has no rights at all.
    code, found = await doctor(scenario)
    assert code == 2
    assert found["rights"]["status"] == "fail"
    assert "rollouts.argoproj.io: get, list, watch" in found["rights"]["found"]
    assert "manifests/base/rbac.yaml" in found["rights"]["remedy"]

    data = {"trafficRouterPlugins": "- name: inference-rollouts/rooter\n"}
    await scenario.kube.patch(
        CONFIGMAP, "argo-rollouts-config", {"data": data}, scenario.namespace, kind=PatchKind.MERGE
    )
    image = "/spec/template/spec/containers/0/image"
    nobody = {"op": "replace", "path": "/spec/holderIdentity", "value": ""}
    await patch(scenario, LEASE, "plugin", nobody)
    old = {"op": "replace", "path": image, "value": "quay.io/argoproj/argo-rollouts:v1.8.3"}
    await patch(scenario, DEPLOYMENT, "argo-rollouts", old)
    code, found = await doctor(scenario, *RIGHTS, "--socket", "/nowhere.sock")
    assert code == 2
    assert {name for name, check in found.items() if check["status"] == "fail"} == {
        "plugin entry",
        "controller",
        "several servers",
        "server",
    }
    assert "held by nobody" in found["several servers"]["found"]
    assert "found inference-rollouts/rooter" in found["plugin entry"]["found"]
    assert "v1.8.3" in found["controller"]["found"]
    assert all(check["remedy"] for check in found.values() if check["status"] == "fail")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param("config", "httpRute: unknown key", id="unknown key"),
        pytest.param("route", "does not exist", id="no such route"),
        pytest.param("gateway", "not accepted", id="a gateway that is not there"),
    ],
)
async def test_each_rollout_that_can_not_work_is_named(
    scenario: Scenario, fault: str, says: str
) -> None:
    await install(scenario)
    await hash_addressed(scenario)
    await scenario.until_accepted("chat")
    changes: dict[str, tuple[Resource, dict[str, Any]]] = {
        "config": (ROLLOUT, {"op": "add", "path": f"{PLUGIN}/httpRute", "value": "x"}),
        "route": (
            ROLLOUT,
            {"op": "replace", "path": f"{PLUGIN}/httpRoutes", "value": [{"name": "other"}]},
        ),
        "gateway": (
            HTTPROUTE,
            {"op": "replace", "path": "/spec/parentRefs/0/name", "value": "absent"},
        ),
    }
    resource, change = changes[fault]
    await patch(scenario, resource, "chat", change)
    code, found = await doctor(scenario, *RIGHTS)
    check = found[f"rollout {scenario.namespace}/chat"]
    assert (code, check["status"]) == (2, "fail")
    assert says in check["found"]
    assert check["remedy"]
