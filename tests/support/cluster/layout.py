"""Where a cluster keeps its files, and the document that tells others about it."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATE_VARIABLE: Final = "INFERENCE_ROLLOUTS_CLUSTER"
"""Environment variable with the state directory of the cluster to use."""

RUN_VARIABLE: Final = "INFERENCE_ROLLOUTS_RUN"
"""Set to the run's id in every process of a cluster: the proof that a process is ours."""

# sun_path holds 108 bytes on Linux; names of sockets come on top of the folder.
_SOCKET_FOLDER_LIMIT: Final = 80


def clusters_folder() -> Path:
    """Folder of this user's clusters, readable by nobody else. Short, for unix sockets' sake."""
    folder = Path(tempfile.gettempdir()) / f"inference-rollouts-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set TMPDIR to a folder of yours")
    return folder


def default_state_dir() -> Path:
    """State directory of ``up`` when none is named."""
    named = os.environ.get(STATE_VARIABLE)
    return Path(named) if named else clusters_folder() / "default"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths inside one state directory."""

    state_dir: Path

    @property
    def document(self) -> Path:
        """``cluster.json``: written when the cluster is ready, removed when it stops."""
        return self.state_dir / "cluster.json"

    @property
    def status(self) -> Path:
        """``status.json``: the state of each process, rewritten at every change."""
        return self.state_dir / "status.json"

    @property
    def owner(self) -> Path:
        """``owner.json``: pid, start time and run id of the process in charge."""
        return self.state_dir / "owner.json"

    @property
    def lock(self) -> Path:
        """Locked for as long as the cluster is up. Outside, so that a wipe leaves it alone."""
        return self.state_dir.with_name(f"{self.state_dir.name}.lock")

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.state_dir / "pki"

    @property
    def bin(self) -> Path:
        """Links to the programs, for PATH."""
        return self.state_dir / "bin"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.state_dir / "logs"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, one JSON event a line."""
        return self.state_dir / "audit.log"

    @property
    def envoy(self) -> Path:
        """Envoy's bootstrap and the gateway's dynamic configuration."""
        return self.state_dir / "envoy"

    @property
    def sockets(self) -> Path:
        """Folder of unix sockets; elsewhere when the state directory's path is too long."""
        inside = self.state_dir / "run"
        if len(str(inside)) <= _SOCKET_FOLDER_LIMIT:
            return inside
        digest = hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:12]
        return clusters_folder() / digest

    @property
    def plugin_socket(self) -> Path:
        """Where the plugin server listens for the bridge."""
        return self.sockets / "plugin.sock"

    def pid_file(self, name: str) -> Path:
        """File with the process id of a component."""
        return self.state_dir / "run" / f"{name}.pid"

    def log(self, name: str) -> Path:
        """File with a component's output."""
        return self.logs / f"{name}.log"

    def kubeconfig(self, user: str) -> Path:
        """Kubeconfig of one user: ``admin``, ``argo-rollouts``, ``plugin``, …"""
        return self.state_dir / "kubeconfig" / f"{user}.yaml"

    def folders(self) -> list[Path]:
        """Every folder that must exist before the first process starts."""
        inside = ["run", "kubeconfig", "etcd", "prometheus", "argo-rollouts"]
        return [
            self.pki,
            self.bin,
            self.logs,
            self.envoy,
            self.sockets,
            *(self.state_dir / name for name in inside),
        ]

    def prepare(self) -> None:
        """Make the directory if need be. Raises FileExistsError for one that is no cluster's."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(self.state_dir.iterdir()) and not self.status.exists():
            raise FileExistsError(
                f"{self.state_dir} is not empty and not a cluster's: starting one would wipe it;"
                " name another directory"
            )

    def wipe(self) -> None:
        """Remove everything that an earlier cluster left. Raises as ``prepare`` does."""
        self.prepare()
        shutil.rmtree(self.state_dir, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)
        self.state_dir.mkdir(mode=0o700)
        self.status.write_text("{}")
