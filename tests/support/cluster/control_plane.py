"""etcd, kube-apiserver and kube-controller-manager, with the credentials that they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from support.cluster.component import Component
from support.cluster.network import (
    APISERVER_PORT,
    CONTROLLER_MANAGER_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    Network,
)
from support.cluster.pki import Authority, Issued, key_pair, write_kubeconfig
from support.cluster.probe import answers_200, trust

if TYPE_CHECKING:
    from pathlib import Path

    from support.cluster.layout import Layout
    from support.toolchain import Toolchain

_SERVICE_RANGE: Final = "10.96.0.0/16"
_SERVICE_OF_APISERVER: Final = "10.96.0.1"

ARGO_NAMESPACE: Final = "argo-rollouts"
_ACCOUNTS: Final = ("system:serviceaccounts", f"system:serviceaccounts:{ARGO_NAMESPACE}")

USERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "admin": ("admin", ("system:masters",)),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "node-agent": ("system:node:local", ("system:nodes",)),
    "gateway": ("local-gateway", ()),
    "prometheus": ("local-prometheus", ()),
    "argo-rollouts": (f"system:serviceaccount:{ARGO_NAMESPACE}:argo-rollouts", _ACCOUNTS),
    "plugin": (f"system:serviceaccount:{ARGO_NAMESPACE}:inference-rollouts-plugin", _ACCOUNTS),
}
"""Component -> (user name, groups). What they may do is RBAC's business.

The controller and the plugin server carry the names of the service accounts that they have in a
real installation, so that the very RBAC a user installs is what they run with here.
"""

_AUDIT_POLICY: Final = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
"""

# Left out: what manages real nodes, volumes and clouds. The endpoint controllers can't work,
# because the API server refuses loopback addresses in EndpointSlices; the gateway resolves
# Services by their pods.
_CONTROLLERS: Final = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the control plane's processes authenticate with and trust."""

    authority: Path
    etcd_authority: Path
    etcd: Issued
    etcd_client: Issued
    apiserver: Issued
    controller_manager: Issued
    accounts: Issued
    users: dict[str, Issued]


def issue(layout: Layout, network: Network) -> Credentials:
    """Create both authorities, all certificates, and one kubeconfig per user."""
    folder = layout.pki
    # etcd has its own: whoever may talk to Kubernetes must not get at its storage.
    etcd_authority = Authority.create(folder, "etcd-ca")
    authority = Authority.create(folder, "ca")
    services = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    hosts = [network.host, "127.0.0.1", _SERVICE_OF_APISERVER, *services]
    users = {
        name: authority.client(folder, name, user, groups) for name, (user, groups) in USERS.items()
    }
    for name, issued in users.items():
        write_kubeconfig(
            layout.kubeconfig(name),
            server=apiserver_url(network),
            authority=authority.certificate,
            user=issued,
        )
    return Credentials(
        authority=authority.certificate,
        etcd_authority=etcd_authority.certificate,
        etcd=etcd_authority.server(folder, "etcd", [network.host]),
        etcd_client=etcd_authority.client(folder, "etcd-client", "kube-apiserver"),
        apiserver=authority.server(folder, "apiserver", hosts),
        controller_manager=authority.server(folder, "controller-manager", [network.host]),
        accounts=key_pair(folder, "service-accounts"),
        users=users,
    )


def apiserver_url(network: Network) -> str:
    """URL of the API server."""
    return f"https://{network.host}:{APISERVER_PORT}"


def etcd(layout: Layout, network: Network, keys: Credentials, tools: Toolchain) -> Component:
    """Run the store. Without fsync: the data of a test cluster dies with it anyway."""
    url = f"https://{network.host}:{ETCD_PORT}"
    peer = f"https://{network.host}:{ETCD_PEER_PORT}"
    argv = (
        tools.binary("etcd"),
        "--name=local",
        f"--data-dir={layout.state_dir / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        "--client-cert-auth",
        "--peer-client-cert-auth",
        f"--trusted-ca-file={keys.etcd_authority}",
        f"--cert-file={keys.etcd.certificate}",
        f"--key-file={keys.etcd.key}",
        f"--peer-trusted-ca-file={keys.etcd_authority}",
        f"--peer-cert-file={keys.etcd.certificate}",
        f"--peer-key-file={keys.etcd.key}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    tls = trust(keys.etcd_authority, keys.etcd_client)
    return Component(
        name="etcd", argv=argv, cwd=layout.state_dir, ready=answers_200(f"{url}/health", tls)
    )


def kube_apiserver(
    layout: Layout, network: Network, keys: Credentials, tools: Toolchain
) -> Component:
    """Run the API server: RBAC, default admission (ServiceAccount included), an audit log."""
    policy = layout.state_dir / "audit-policy.yaml"
    policy.write_text(_AUDIT_POLICY)
    argv = (
        tools.binary("kube-apiserver"),
        f"--bind-address={network.host}",
        f"--advertise-address={network.host}",
        f"--secure-port={APISERVER_PORT}",
        f"--tls-cert-file={keys.apiserver.certificate}",
        f"--tls-private-key-file={keys.apiserver.key}",
        f"--client-ca-file={keys.authority}",
        f"--etcd-servers=https://{network.host}:{ETCD_PORT}",
        f"--etcd-cafile={keys.etcd_authority}",
        f"--etcd-certfile={keys.etcd_client.certificate}",
        f"--etcd-keyfile={keys.etcd_client.key}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={keys.accounts.certificate}",
        f"--service-account-signing-key-file={keys.accounts.key}",
        f"--service-cluster-ip-range={_SERVICE_RANGE}",
        # It would publish its own loopback address as an endpoint and refuse it.
        "--endpoint-reconciler-type=none",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=1024",
        "--allow-privileged=true",
        # One user's requests are counted in the tests; queues would only hide a storm.
        "--enable-priority-and-fairness=false",
        "--profiling=false",
        f"--cert-dir={layout.pki}",
    )
    tls = trust(keys.authority, keys.users["admin"])
    return Component(
        name="kube-apiserver",
        argv=argv,
        cwd=layout.state_dir,
        # Half of its start is garbage collection: memory is less scarce here than the two cores.
        env={"GOGC": "200"},
        ready=answers_200(f"{apiserver_url(network)}/readyz", tls),
        patience_s=120,
    )


def kube_controller_manager(
    layout: Layout, network: Network, keys: Credentials, tools: Toolchain
) -> Component:
    """Run the controllers that make sense on one machine without volumes and endpoints."""
    kubeconfig = layout.kubeconfig("kube-controller-manager")
    argv = (
        tools.binary("kube-controller-manager"),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        # Nothing but /healthz is asked of it: no proxy's authority has to be looked up.
        "--authentication-skip-lookup",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={network.host}",
        f"--secure-port={CONTROLLER_MANAGER_PORT}",
        f"--tls-cert-file={keys.controller_manager.certificate}",
        f"--tls-private-key-file={keys.controller_manager.key}",
        f"--root-ca-file={keys.authority}",
        f"--service-account-private-key-file={keys.accounts.key}",
        "--use-service-account-credentials",
        f"--controllers={','.join(_CONTROLLERS)}",
        "--leader-elect=false",
        # A namespace per scenario: they come and go quickly.
        "--concurrent-namespace-syncs=20",
        "--profiling=false",
    )
    url = f"https://{network.host}:{CONTROLLER_MANAGER_PORT}/healthz"
    return Component(
        name="kube-controller-manager",
        argv=argv,
        cwd=layout.state_dir,
        ready=answers_200(url, trust(keys.authority)),
    )
