"""What doctor makes of an installation's manifests and of a server's answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from inference_common.kube import HTTPROUTE, ROLLOUT, Resource
from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin.cluster import WATCHED
from inference_plugin.doctor.checks import Check, Status
from inference_plugin.doctor.controller import (
    check_controller,
    check_mounts,
    check_restart,
    check_servers,
    controller_of,
    servers_of,
)
from inference_plugin.doctor.plugin_entry import entry_of
from inference_plugin.doctor.rights import NEEDS
from inference_plugin.doctor.server import judge
from inference_plugin.doctor.types import check_types
from inference_plugin.introductions import PROTOCOL, Introductions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Object = dict[str, Any]
MANIFESTS = Path(__file__).resolve().parents[3] / "manifests"
SIDECAR = MANIFESTS / "overlays" / "argo-sidecar"


def config_map(text: str | None = None) -> Object:
    found: Object = yaml.safe_load((SIDECAR / "config.yaml").read_text())
    if text is not None:
        found["data"]["trafficRouterPlugins"] = text
    return found


def deployment(image: str = "quay.io/argoproj/argo-rollouts:v1.10.2") -> Object:
    """The overlay's patch, with what Argo's own manifest has."""
    found: Object = yaml.safe_load((SIDECAR / "sidecar.yaml").read_text())
    found["metadata"]["namespace"] = "argo-rollouts"
    found["spec"]["selector"] = {"matchLabels": {"app": "argo"}}
    found["spec"]["template"]["spec"]["serviceAccountName"] = "argo-rollouts"
    found["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return found


def statuses(checks: Iterable[Check]) -> list[Status]:
    return [each.status for each in checks]


def entry(**changes: Any) -> str:
    base = yaml.safe_load(config_map()["data"]["trafficRouterPlugins"])[0]
    return yaml.safe_dump([base | changes])


OK, WARN, FAIL, SKIPPED = Status.OK, Status.WARN, Status.FAIL, Status.SKIPPED
REMOTE = "https://downloads.example/bridge"
SHA = "ab" * 32


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        pytest.param(config_map(), OK, "file:///plugins/bridge", id="the overlay's own"),
        pytest.param(None, FAIL, "does not exist", id="no ConfigMap"),
        pytest.param({"data": {"other": "x"}}, FAIL, "it has other", id="no key"),
        pytest.param(config_map("- name: ["), FAIL, "is not YAML", id="not YAML"),
        pytest.param(config_map("name: x"), FAIL, "is no list", id="no list"),
        pytest.param(config_map(entry(name="x/y")), FAIL, "found x/y", id="another name"),
        pytest.param(config_map(entry() + entry()), FAIL, "2 times", id="twice"),
        pytest.param(config_map(entry(args=[])), FAIL, "no --server", id="no server"),
        pytest.param(
            config_map(entry(args=["--server=tcp://x"])), FAIL, "tcp://x", id="a server by tcp"
        ),
        pytest.param(
            config_map(entry(args=["--server", "dns:///plugin:443"])),
            FAIL,
            "has no --tls-cert",
            id="a network without TLS",
        ),
        pytest.param(
            config_map(entry(args=["--server", "dns:///plugin:443", "--tls-cert", "c"])),
            OK,
            "dns:///plugin:443",
            id="a network with TLS",
        ),
        pytest.param(config_map(entry(location="/x")), FAIL, "location is '/x'", id="bare path"),
        pytest.param(config_map(entry(sha256=SHA)), WARN, "not checked", id="sha of a file"),
        pytest.param(config_map(entry(location=REMOTE)), WARN, "no sha256", id="no sha of a URL"),
        pytest.param(
            config_map(entry(location=REMOTE, sha256=SHA[:40])), FAIL, "sha256 is", id="short sha"
        ),
        pytest.param(config_map(entry(location=REMOTE, sha256=SHA)), OK, REMOTE, id="URL and sha"),
    ],
)
def test_the_plugins_entry_is_judged_as_argo_reads_it(
    found: Object | None, status: Status, says: str
) -> None:
    _, [check] = entry_of(found, "argo-rollouts/argo-rollouts-config")
    assert (check.status, says in check.found) == (status, True), check


@pytest.mark.parametrize(
    ("image", "status"),
    [
        pytest.param("quay.io/argoproj/argo-rollouts:v1.10.2", OK, id="1.10"),
        pytest.param("registry:5000/argo-rollouts:v2.0.0-rc1@sha256:0", OK, id="2.0"),
        pytest.param("quay.io/argoproj/argo-rollouts:v1.9.1", FAIL, id="1.9"),
        pytest.param("quay.io/argoproj/argo-rollouts@sha256:0", WARN, id="by digest"),
        pytest.param("quay.io/argoproj/argo-rollouts:latest", WARN, id="latest"),
        pytest.param("other:v1", WARN, id="no controller"),
    ],
)
def test_the_controllers_version_is_its_images_tag(image: str, status: Status) -> None:
    found = controller_of([deployment(image)])
    assert statuses(check_controller(found, "argo-rollouts")) == [status]


def no_bridge(spec: Object) -> None:
    del spec["containers"][0]["volumeMounts"][0]


def no_socket(spec: Object) -> None:
    del spec["containers"][0]["volumeMounts"][1]


def no_server(spec: Object) -> None:
    del spec["containers"][1]


def other_volume(spec: Object) -> None:
    spec["containers"][1]["volumeMounts"][0]["name"] = "inference-rollouts-bridge"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(no_bridge, "covers /plugins/bridge", id="bridge not mounted"),
        pytest.param(no_socket, "covers /run/inference-rollouts/plugin.sock", id="no socket"),
        pytest.param(no_server, "no container that runs the plugin server", id="no sidecar"),
        pytest.param(other_volume, "another volume", id="two volumes"),
    ],
)
def test_bridge_and_socket_must_be_where_the_entry_says(
    change: Callable[[Object], None], says: str
) -> None:
    good = deployment()
    plugin, _ = entry_of(config_map(), "x")
    assert statuses(check_mounts(plugin, controller_of([good]), servers_of([good]))) == [OK]
    change(good["spec"]["template"]["spec"])
    [check] = check_mounts(plugin, controller_of([good]), servers_of([good]))
    assert (check.status, says in check.found) == (FAIL, True), check


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        pytest.param("2026-01-01T10:00:00Z", OK, id="before the start"),
        pytest.param("2026-01-01T12:00:00Z", WARN, id="after the start"),
    ],
)
def test_a_changed_entry_wants_a_restart(changed: str, status: Status) -> None:
    found = config_map()
    found["metadata"]["managedFields"] = [{"time": changed}]
    pod = {
        "metadata": {"labels": {"app": "argo"}},
        "status": {"startTime": "2026-01-01T11:00:00Z"},
    }
    assert statuses(check_restart(found, [pod], controller_of([deployment()]))) == [status]


def leased(replicas: int, *, lease: bool) -> Object:
    found = deployment()
    found["spec"]["replicas"] = replicas
    args = found["spec"]["template"]["spec"]["containers"][1]["args"]
    args[:] = [arg for arg in args if not arg.startswith("--lease")]
    if lease:
        args.append("--lease=argo-rollouts/plugin")
    return found


HELD = {"spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}


@pytest.mark.parametrize(
    ("deployments", "lease", "age_s", "status"),
    [
        pytest.param([leased(1, lease=False)], None, None, OK, id="one server"),
        pytest.param([leased(2, lease=False)], None, None, WARN, id="two without a Lease"),
        pytest.param(
            [leased(1, lease=True), leased(1, lease=False)], HELD, 1.0, WARN, id="one outside"
        ),
        pytest.param([leased(2, lease=True)], HELD, 1.0, OK, id="two with a Lease"),
        pytest.param([leased(2, lease=True)], None, None, FAIL, id="no Lease"),
        pytest.param([leased(2, lease=True)], HELD, 100.0, FAIL, id="a stale Lease"),
        pytest.param([], None, None, SKIPPED, id="no server here"),
    ],
)
def test_several_servers_need_a_lease_that_somebody_holds(
    deployments: list[Object], lease: Object | None, age_s: float | None, status: Status
) -> None:
    assert statuses(check_servers(servers_of(deployments), lease, age_s)) == [status]


def test_the_rights_asked_for_are_those_of_the_manifest() -> None:
    documents = yaml.safe_load_all((MANIFESTS / "base" / "rbac.yaml").read_text())
    rules = next(each for each in documents if each["kind"] == "ClusterRole")["rules"]
    needed = {
        (need.resource.group, need.resource.plural, verb) for need in NEEDS for verb in need.verbs
    }
    given = {
        (group, plural, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for plural in rule["resources"]
        for verb in rule["verbs"]
    }
    assert needed <= given
    # What is given besides: kinds of a group that do not exist in the other, and the newer Events.
    groups = {(group, plural) for group, plural, _ in given}
    assert {plural for _, plural, _ in given - needed} <= {
        "events",
        "inferencemodels",
        "inferencemodelrewrites",
    }
    assert ("events.k8s.io", "events") in groups


def test_types_are_told_in_the_version_that_is_served() -> None:
    served: dict[Resource, Resource | None] = {each: each for each in WATCHED}
    assert statuses(check_types(served)) == [OK]
    newer = Resource(HTTPROUTE.group, "v2", HTTPROUTE.plural, HTTPROUTE.kind)
    [check] = check_types(served | {HTTPROUTE: newer})
    assert (check.status, "HTTPRoute gateway.networking.k8s.io/v2" in check.found) == (WARN, True)
    assert statuses(check_types(served | {ROLLOUT: None})) == [FAIL]
    assert statuses(check_types({ROLLOUT: ROLLOUT})) == [FAIL]


def described(**changes: Any) -> Any:
    bridge = pb.Bridge(version="0.1.0", protocol=PROTOCOL, announced_ago_s=3)
    base: Object = {
        "server_version": "0.1.0",
        "protocol": PROTOCOL,
        "ready": True,
        "leads": True,
        "bridges": [bridge],
    }
    return pb.DescribeResponse(**(base | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [OK, OK], id="all equal"),
        pytest.param({"ready": False}, [WARN, OK], id="not ready"),
        pytest.param({"bridges": []}, [OK, WARN], id="no bridge yet"),
        pytest.param(
            {"bridges": [pb.Bridge(version="0.0.9", protocol=PROTOCOL)]}, [OK, WARN], id="older"
        ),
        pytest.param(
            {"bridges": [pb.Bridge(version="0.1.0", protocol=0)]}, [OK, FAIL], id="old contract"
        ),
        pytest.param({"server_version": "9"}, [WARN, WARN], id="another server"),
    ],
)
def test_server_and_bridge_must_speak_one_contract(changes: Object, expected: list[Status]) -> None:
    assert statuses(judge(described(**changes), "unix:/s")) == expected


def test_introductions_are_bounded_and_the_last_comes_first() -> None:
    now = 0.0
    seen = Introductions(lambda: now)
    for index in range(50):
        now = float(index)
        seen.note(f"0.0.{index}", 1)
    seen.note("x" * 1000, 1)
    found = seen.seen()
    assert len(found) == 20
    assert found[0].version == "x" * 20
    assert (found[1].version, found[1].ago_s) == ("0.0.49", 0.0)
