"""Certificates, kubeconfigs and addresses of a cluster."""

from __future__ import annotations

import base64
import datetime as dt
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from support.cluster import control_plane
from support.cluster.layout import Layout
from support.cluster.network import Network, claim_network
from support.cluster.pki import Authority, Issued, key_pair, write_kubeconfig


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def names(issued: Issued, kind: x509.ObjectIdentifier) -> list[str]:
    found = certificate(issued.certificate).subject.get_attributes_for_oid(kind)
    return [str(attribute.value) for attribute in found]


def test_a_client_carries_user_and_groups(tmp_path: Path) -> None:
    issued = Authority.create(tmp_path, "ca").client(tmp_path, "x", "system:node:a", ["g1", "g2"])
    assert names(issued, NameOID.COMMON_NAME) == ["system:node:a"]
    assert names(issued, NameOID.ORGANIZATION_NAME) == ["g1", "g2"]


def test_a_server_is_trusted_for_its_names_and_by_its_authority_only(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "ca")
    issued = authority.server(tmp_path, "server", ["localhost", "127.16.0.1"])

    def verify(root: Path, host: str) -> None:
        policy = PolicyBuilder().store(Store([certificate(root)]))
        policy = policy.time(dt.datetime.now(dt.UTC).replace(tzinfo=None))
        verifier = policy.build_server_verifier(x509.DNSName(host))
        verifier.verify(certificate(issued.certificate), [])

    verify(authority.certificate, "localhost")
    with pytest.raises(x509.verification.VerificationError):
        verify(authority.certificate, "elsewhere")
    with pytest.raises(x509.verification.VerificationError):
        verify(Authority.create(tmp_path, "other").certificate, "localhost")


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "ca")
    for issued in (authority.client(tmp_path, "x", "x"), key_pair(tmp_path, "y")):
        assert issued.key.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "ca.key").exists()


def test_a_kubeconfig_needs_no_other_file(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "ca")
    issued = authority.client(tmp_path, "x", "x")
    path = tmp_path / "kubeconfig"
    write_kubeconfig(
        path, server="https://127.16.0.1:6443", authority=authority.certificate, user=issued
    )
    found = yaml.safe_load(path.read_text())
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    assert cluster["server"] == "https://127.16.0.1:6443"
    trusted = base64.b64decode(cluster["certificate-authority-data"])
    assert trusted == authority.certificate.read_bytes()
    assert base64.b64decode(user["client-key-data"]) == issued.key.read_bytes()
    assert "insecure-skip-tls-verify" not in path.read_text()


def test_every_user_gets_a_kubeconfig_and_etcd_an_authority_of_its_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for folder in layout.folders():
        folder.mkdir(parents=True, exist_ok=True)
    keys = control_plane.issue(layout, Network(16))
    for name in control_plane.USERS:
        assert layout.kubeconfig(name).exists()
    issuers = {certificate(item.certificate).issuer for item in (keys.apiserver, keys.etcd)}
    assert len(issuers) == 2


def test_controller_and_plugin_are_the_service_accounts_of_a_real_installation() -> None:
    for part, account in (
        ("argo-rollouts", "argo-rollouts"),
        ("plugin", "inference-rollouts-plugin"),
    ):
        user, groups = control_plane.USERS[part]
        assert user == f"system:serviceaccount:argo-rollouts:{account}"
        # kubernetes.io/docs/reference/access-authn-authz/authentication, service account tokens
        assert set(groups) == {
            "system:serviceaccounts",
            "system:serviceaccounts:argo-rollouts",
        }


def test_two_clusters_get_different_networks_and_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clusters that run on this machine right now have no say here.
    monkeypatch.setattr("support.cluster.network._free", lambda _address, _port: True)
    first, second = claim_network(tmp_path), claim_network(tmp_path)
    assert first.network != second.network
    ports = [
        port
        for network in (first.network, second.network)
        for port in (network.argo_metrics_port, network.argo_health_port)
    ]
    assert len(set(ports)) == 4
    first.lock.close()
    again = claim_network(tmp_path)
    assert again.network == first.network
    again.lock.close()
    second.lock.close()


def test_fixed_ports_stay_below_the_ephemeral_ones() -> None:
    # ip_local_port_range starts at 32768 (Linux, Documentation/networking/ip-sysctl)
    assert Network(239).argo_health_port < 32768


def test_a_long_state_directory_keeps_its_sockets_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    layout = Layout(tmp_path / ("long" * 30))
    # sockaddr_un.sun_path, unix(7): 108 bytes with the closing zero
    assert len(str(layout.plugin_socket)) < 108
    assert not layout.plugin_socket.is_relative_to(layout.state_dir)
    assert Layout(Path("/tmp/x")).plugin_socket == Path("/tmp/x/run/plugin.sock")
