"""Addresses, scheduling, probes and volumes: what a node decides without asking anybody."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.nodeagent.addresses import Addresses
from support.nodeagent.api import PodApi, Token
from support.nodeagent.environment import ConfigError, Contents, Reference
from support.nodeagent.moments import now_utc, text_of
from support.nodeagent.nodes import lease_object, node_object, node_status
from support.nodeagent.places import Cluster, PodPlace, kubeconfig
from support.nodeagent.probes import (
    Exec,
    Grpc,
    HttpGet,
    ProbeKind,
    ProbeState,
    Sleep,
    TcpSocket,
    action_of,
    port_number,
    probes_of,
)
from support.nodeagent.scheduling import binding, choose_node, wants_node
from support.nodeagent.volumes import (
    TokenRequest,
    files_of,
    place_of,
    sources_of,
    token_requests,
    volume_references,
    write_volume,
)

if TYPE_CHECKING:
    from inference_common.kube import Kube

NETWORK = "127.77.0.0/16"


def test_pods_get_addresses_apart_from_nodes_and_gateways() -> None:
    addresses = Addresses(NETWORK)
    given_out = [addresses.allocate() for _ in range(600)]
    assert given_out[:2] == ["127.77.1.1", "127.77.1.2"]
    assert len(set(given_out)) == 600
    octets = {ipaddress.IPv4Address(one).packed[2] for one in given_out}
    assert octets == {1, 2, 3}
    assert addresses.node(0) == "127.77.0.1"


@given(st.lists(st.sampled_from(["allocate", "release"]), max_size=200))
def test_no_address_is_given_out_twice(actions: list[str]) -> None:
    addresses = Addresses(NETWORK)
    held: list[str] = []
    for action in actions:
        if action == "release" and held:
            addresses.release(held.pop(0))
        else:
            found = addresses.allocate()
            assert found not in held
            held.append(found)


def test_a_released_address_is_reused_late() -> None:
    addresses = Addresses(NETWORK)
    first = addresses.allocate()
    addresses.release(first)
    assert first not in {addresses.allocate() for _ in range(1000)}


def test_addresses_of_running_pods_are_left_alone() -> None:
    addresses = Addresses(NETWORK)
    addresses.reserve("127.77.1.2")
    addresses.reserve("127.77.3.4")
    assert addresses.allocate() == "127.77.3.5"


@pytest.mark.parametrize("network", ["10.0.0.0/16", "127.0.0.0/8", "127.1.0.0/24"])
def test_only_a_loopback_16_is_a_network(network: str) -> None:
    with pytest.raises(ValueError, match="/16"):
        Addresses(network)


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"containers": [], **spec},
        "status": {"phase": "Pending"},
    }


@pytest.mark.parametrize(
    ("change", "wants"),
    [
        pytest.param({}, True, id="pending"),
        pytest.param({"spec": {"nodeName": "x"}}, False, id="bound"),
        pytest.param({"spec": {"schedulerName": "other"}}, False, id="another-scheduler"),
        pytest.param({"spec": {"schedulingGates": [{"name": "g"}]}}, False, id="gated"),
        pytest.param({"metadata": {"deletionTimestamp": "t"}}, False, id="deleted"),
        pytest.param({"status": {"phase": "Failed"}}, False, id="finished"),
    ],
)
def test_only_a_waiting_pod_is_scheduled(change: dict[str, Any], *, wants: bool) -> None:
    given_pod = pod()
    for part, values in change.items():
        given_pod[part] |= values
    assert wants_node(given_pod) is wants


def node(name: str, *, cordoned: bool = False, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": True} if cordoned else {},
    }


def test_a_pod_goes_to_the_fitting_node_with_the_fewest_pods() -> None:
    nodes = [node("a", gpu="h100"), node("b", gpu="h100"), node("c", gpu="l4")]
    load = {"a": 2, "b": 1, "c": 0}
    assert choose_node(pod(), nodes, load) == "c"
    assert choose_node(pod(nodeSelector={"gpu": "h100"}), nodes, load) == "b"
    assert choose_node(pod(nodeSelector={"gpu": "none"}), nodes, load) is None
    assert choose_node(pod(), [node("a", cordoned=True)], {}) is None


def test_a_binding_names_the_very_pod() -> None:
    body = binding(pod(), "local-1")
    assert body["metadata"] == {"name": "p", "namespace": "ns", "uid": "u"}
    assert body["target"]["name"] == "local-1"


def test_a_node_is_ready_and_its_lease_is_its_own() -> None:
    conditions = node_status("n", "127.77.0.1", now_utc())["status"]["conditions"]
    assert {one["type"]: one["status"] for one in conditions}["Ready"] == "True"
    lease = lease_object("n", "uid-of-n", now_utc())
    assert lease["metadata"]["ownerReferences"][0]["uid"] == "uid-of-n"
    assert lease["spec"]["holderIdentity"] == node_object("n")["metadata"]["name"]


@pytest.mark.parametrize(
    ("spec", "action"),
    [
        (
            {"httpGet": {"port": "web", "scheme": "HTTPS"}},
            HttpGet(host=None, port="web", path="/", scheme="https", headers=()),
        ),
        ({"tcpSocket": {"port": 80}}, TcpSocket(host=None, port=80)),
        ({"exec": {"command": ["a", "b"]}}, Exec(command=("a", "b"))),
        ({"grpc": {"port": 9002}}, Grpc(port=9002, service="")),
        ({"sleep": {"seconds": 2}}, Sleep(seconds=2)),
    ],
    ids=["httpGet", "tcpSocket", "exec", "grpc", "sleep"],
)
def test_an_action_is_read(spec: dict[str, Any], action: object) -> None:
    assert action_of(spec) == action


def test_a_probe_has_the_defaults_of_the_api() -> None:
    """Kubernetes API reference, Probe: 0 s, 10 s, 1 s, 1, 3."""
    probe = probes_of({"livenessProbe": {"tcpSocket": {"port": 1}}})[ProbeKind.LIVENESS]
    assert (probe.initial_delay_s, probe.period_s, probe.timeout_s) == (0, 10, 1)
    assert (probe.success_threshold, probe.failure_threshold, probe.grace_s) == (1, 3, None)


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        pytest.param("++", [None, True], id="two-successes-are-needed"),
        pytest.param("+-+-", [None] * 4, id="never-two-in-a-row"),
        pytest.param("++--", [None, True, True, True], id="two-failures-are-too-few"),
        pytest.param("++---", [None, True, True, True, False], id="three-failures-turn-it"),
        pytest.param("++--+--", [None] + [True] * 6, id="a-success-starts-the-count-over"),
        pytest.param("---++", [None, None, False, False, True], id="recovery"),
    ],
)
def test_a_verdict_turns_at_its_thresholds(answers: str, verdicts: list[bool | None]) -> None:
    spec = {"tcpSocket": {"port": 1}, "successThreshold": 2, "failureThreshold": 3}
    probe = probes_of({"readinessProbe": spec})[ProbeKind.READINESS]
    state, found = ProbeState(), []
    for answer in answers:
        state = state.after(probe, answer=answer == "+")
        found.append(state.verdict)
    assert found == verdicts


@given(st.lists(st.booleans(), min_size=1), st.integers(1, 4), st.integers(1, 4))
def test_a_verdict_always_equals_some_recent_run(
    answers: list[bool], successes: int, failures: int
) -> None:
    spec = {
        "tcpSocket": {"port": 1},
        "successThreshold": successes,
        "failureThreshold": failures,
    }
    probe = probes_of({"readinessProbe": spec})[ProbeKind.READINESS]
    state = ProbeState()
    for index, answer in enumerate(answers):
        before = state.verdict
        state = state.after(probe, answer=answer)
        if state.verdict != before:
            needed = successes if answer else failures
            assert state.verdict is answer
            assert answers[index - needed + 1 : index + 1] == [answer] * needed


def test_a_port_may_be_given_by_name() -> None:
    container = {"name": "m", "ports": [{"name": "web", "containerPort": 8000}]}
    assert port_number(container, "web") == port_number(container, "8000") == 8000
    with pytest.raises(ValueError, match='no port named "grpc"'):
        port_number(container, "grpc")


ACCESS: dict[str, Any] = {
    "name": "kube-api-access",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ]
    },
}


def test_the_service_account_volume_is_token_ca_and_namespace() -> None:
    """What the ServiceAccount admission plugin adds to a pod (recorded from API server 1.36)."""
    given_pod = pod(volumes=[ACCESS])
    request = TokenRequest("", 3607)
    assert token_requests(given_pod) == {request}
    reference = Reference("ConfigMap", "kube-root-ca.crt")
    assert volume_references(given_pod) == {reference}
    contents: Contents = {reference: {"ca.crt": b"CA", "other": b"x"}}
    files = files_of(given_pod, ACCESS, contents, {request: "T"}, {})
    assert files == {"token": b"T", "ca.crt": b"CA", "namespace": b"ns"}


@pytest.mark.parametrize(
    ("volume", "files"),
    [
        pytest.param({"configMap": {"name": "c"}}, {"a": b"1", "b": b"2"}, id="whole"),
        pytest.param(
            {"configMap": {"name": "c", "items": [{"key": "b", "path": "x/y"}]}},
            {"x/y": b"2"},
            id="one-key-elsewhere",
        ),
        pytest.param({"secret": {"secretName": "s"}}, {"k": b"v"}, id="secret"),
        pytest.param({"configMap": {"name": "no", "optional": True}}, {}, id="optional"),
        pytest.param({"emptyDir": {}}, None, id="empty"),
    ],
)
def test_a_volume_shows_what_it_refers_to(
    volume: dict[str, Any], files: dict[str, bytes] | None
) -> None:
    contents: Contents = {
        Reference("ConfigMap", "c"): {"a": b"1", "b": b"2"},
        Reference("Secret", "s"): {"k": b"v"},
        Reference("ConfigMap", "no"): None,
    }
    assert files_of(pod(), {"name": "v"} | volume, contents, {}, {}) == files


def test_a_volume_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="persistentVolumeClaim"):
        sources_of({"name": "v", "persistentVolumeClaim": {"claimName": "x"}})


def test_a_volume_is_brought_up_to_date(tmp_path: Path) -> None:
    volume = {"name": "v", "configMap": {"name": "c"}}
    place = place_of(volume, tmp_path)
    write_volume(volume, place, {"a": b"1", "x/y": b"2"})
    write_volume(volume, place, {"a": b"3"})
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["a"]
    assert (place / "a").read_bytes() == b"3"


def test_what_a_container_wrote_into_an_empty_dir_stays(tmp_path: Path) -> None:
    volume: dict[str, Any] = {"name": "v", "emptyDir": {}}
    place = place_of(volume, tmp_path)
    write_volume(volume, place, None)
    (place / "mine").write_text("x")
    write_volume(volume, place, None)
    assert (place / "mine").read_text() == "x"


def test_a_host_path_is_used_in_place_and_checked(tmp_path: Path) -> None:
    here = {"name": "v", "hostPath": {"path": str(tmp_path), "type": "Directory"}}
    assert place_of(here, Path("/elsewhere")) == tmp_path
    write_volume(here, tmp_path, None)
    with pytest.raises(ConfigError, match="not a directory"):
        write_volume(here, tmp_path / "absent", None)


class Api:
    """Gives out numbered tokens that live as long as the test says."""

    def __init__(self, life_s: float) -> None:
        self.tokens = 0
        self._life = dt.timedelta(seconds=life_s)

    async def contents(self, _namespace: str, references: set[Reference]) -> Contents:
        return {reference: {"ca.crt": b"CA"} for reference in references}

    async def token(self, _pod: object, _request: TokenRequest) -> Token:
        self.tokens += 1
        return Token(text=f"T{self.tokens}", renew_at=now_utc() + self._life)


@pytest.mark.parametrize(("life_s", "token"), [(3600, b"T1"), (-1, b"T3")])
async def test_a_token_is_renewed_when_its_time_has_come(
    tmp_path: Path, life_s: float, token: bytes
) -> None:
    cluster = Cluster(host="127.77.0.1", port=6443, ca_file=Path("/ca.crt"))
    volumes = PodPlace(tmp_path, cluster, {}, cast("PodApi", Api(life_s)))
    given_pod = pod(volumes=[ACCESS])
    place = await volumes.settle(lambda: given_pod, pytest.fail)
    await volumes.refresh(given_pod)
    await volumes.refresh(given_pod)
    written = place.volumes["kube-api-access"] / "token"
    assert written.read_bytes() == token
    assert written.stat().st_mode & 0o077 == 0, "nobody else reads a token"
    volumes.remove()
    assert not written.exists()


async def test_a_token_is_asked_for_again_at_four_fifths_of_its_life() -> None:
    """KEP-1205: a kubelet renews a bound token at 80 % of its life."""
    begin = now_utc()

    class Server:
        async def create(self, *_: object, **__: object) -> dict[str, Any]:
            until = begin + dt.timedelta(seconds=1000)
            return {"status": {"token": "T", "expirationTimestamp": text_of(until)}}

    token = await PodApi(cast("Kube", Server())).token(pod(), TokenRequest("", 1000))
    assert abs((token.renew_at - begin).total_seconds() - 800) <= 2, "whole seconds are written"


def test_a_pods_kubeconfig_verifies_the_server_and_reads_the_token_file() -> None:
    cluster = Cluster(host="127.77.0.1", port=6443, ca_file=Path("/ca.crt"))
    text = kubeconfig(cluster, "ns", Path("/v/token"))
    assert '"server": "https://127.77.0.1:6443"' in text
    assert '"certificate-authority": "/ca.crt"' in text
    assert '"tokenFile": "/v/token"' in text
    assert "skip" not in text
