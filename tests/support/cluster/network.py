"""Addresses: each cluster claims one 127.A.0.0/16, so that clusters never meet."""

from __future__ import annotations

import errno
import fcntl
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from io import TextIOWrapper
    from pathlib import Path

# 127.0.0.0/16 is everybody's, 127.1.0.0/16 a favourite of people; the last ones are left free.
_CANDIDATES: Final = range(16, 240)
_ARGO_PORTS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Network:
    """127.A.0.0/16: 127.A.0.1 carries the cluster's own servers, pods have B from 1 to 254."""

    second: int

    @property
    def cidr(self) -> str:
        """The whole network."""
        return f"127.{self.second}.0.0/16"

    @property
    def host(self) -> str:
        """Address of the cluster's own servers."""
        return f"127.{self.second}.0.1"

    @property
    def argo_metrics_port(self) -> int:
        """Port on 127.0.0.1: the controller takes a port, no address.

        Below the ephemeral ports, so that no outgoing connection ever sits on it, and different
        for each cluster.
        """
        return _ARGO_PORTS + 2 * self.second

    @property
    def argo_health_port(self) -> int:
        """Port on 127.0.0.1 of the controller's health server."""
        return self.argo_metrics_port + 1


ETCD_PORT: Final = 2379
ETCD_PEER_PORT: Final = 2380
APISERVER_PORT: Final = 6443
CONTROLLER_MANAGER_PORT: Final = 10257
PROMETHEUS_PORT: Final = 9090
PLUGIN_METRICS_PORT: Final = 9464
ENVOY_ADMIN_PORT: Final = 9901


@dataclass(frozen=True, slots=True)
class Claim:
    """A network that is ours until the lock is closed, or this process ends."""

    network: Network
    lock: TextIOWrapper


def claim_network(folder: Path) -> Claim:
    """Claim a free network. ``folder`` holds the lock files, shared by all clusters of a user."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for second in _CANDIDATES:
        network = Network(second)
        lock = (folder / f"{second}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if _free(network.host, APISERVER_PORT):
            return Claim(network, lock)
        lock.close()
    raise OSError(
        errno.EADDRINUSE, f"all of 127.{_CANDIDATES[0]} to 127.{_CANDIDATES[-1]} are in use"
    )


def _free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True
