"""What tests and the demo use of a running cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from support.cluster.layout import STATE_VARIABLE, Layout, default_state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_AUDIT_LIMIT_S: Final = 120
_LIMIT_S: Final = 120.0


class CommandError(AssertionError):
    """A command that a test ran failed; the text has its arguments and what it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One request in the API server's audit log (audit.k8s.io/v1, level Metadata)."""

    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    at: str

    @property
    def writes(self) -> bool:
        """Whether the request may change something."""
        return self.verb in {"create", "update", "patch", "delete", "deletecollection"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterClient:
    """A running cluster, as its ``cluster.json`` describes it. ``document`` is that file."""

    document: dict[str, Any]

    @classmethod
    def load(cls, state_dir: str | Path | None = None) -> Self:
        """Load the cluster of $INFERENCE_ROLLOUTS_CLUSTER, else the one that ``up`` started.

        Raises FileNotFoundError when none is ready.
        """
        layout = Layout(Path(state_dir) if state_dir else default_state_dir())
        try:
            return cls(document=json.loads(layout.document.read_text()))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"no cluster is ready in {layout.state_dir}: start one with `make up`, or run the"
                f" command by `python -m support.cluster exec -- …`, which sets {STATE_VARIABLE}"
            ) from None

    @property
    def state_dir(self) -> Path:
        """State directory of the cluster."""
        return Path(self.document["state_dir"])

    @property
    def kubeconfig(self) -> str:
        """Path of the administrator's kubeconfig."""
        return str(self.document["kubeconfig"])

    @property
    def network(self) -> str:
        """``127.A.0.0/16``: pods and gateways have their addresses in it."""
        return str(self.document["network"])

    @property
    def prometheus(self) -> str:
        """URL of Prometheus."""
        return str(self.document["prometheus"])

    @property
    def plugin_metrics(self) -> str:
        """URL of the plugin server's metrics."""
        return str(self.document["plugin_metrics"])

    async def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator and return what it prints. Raises CommandError."""
        return await self._run("kubectl", args, stdin)

    async def argo(self, *args: str) -> str:
        """Run ``kubectl argo rollouts ARGS`` and return what it prints. Raises CommandError."""
        return await self._run("kubectl", ("argo", "rollouts", *args), None)

    def environment(self) -> dict[str, str]:
        """Environment for a command that talks to the cluster: KUBECONFIG, PATH and the like."""
        # This Python's programs too: `python`, `pytest` and `inference-rollouts` are the project's.
        path = [self.document["bin_dir"], str(Path(sys.executable).parent)]
        return os.environ | {
            STATE_VARIABLE: str(self.state_dir),
            "KUBECONFIG": self.kubeconfig,
            "PATH": os.pathsep.join([*path, os.environ.get("PATH", os.defpath)]),
        }

    def log(self, name: str) -> str:
        """Everything that a process of the cluster has printed."""
        return Path(self.document["processes"][name]["log"]).read_text(errors="replace")

    def pid(self, name: str) -> int:
        """Process id of a component as it now runs."""
        return int(Path(self.document["processes"][name]["pid_file"]).read_text())

    def signal(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a component; killed, it is restarted. Returns the id it went to."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def audit(self, component: str | None = None, *, since: int = 0) -> list[AuditEvent]:
        """Read the requests in the audit log, in order, of one component or of all users.

        ``component`` is a name of ``users`` in cluster.json, such as ``plugin``. ``since`` skips
        that many bytes: take ``audit_position()`` before what is to be counted.
        """
        user = None if component is None else self.document["users"][component]
        return [event for event in self._events(since) if user is None or event.user == user]

    async def audited(
        self, component: str, *, since: int, last: Callable[[AuditEvent], bool]
    ) -> list[AuditEvent]:
        """Like ``audit``, once ``last`` holds for one of them: lines are written after answers.

        Raises TimeoutError when none comes.
        """
        async with asyncio.timeout(_AUDIT_LIMIT_S):
            while True:
                events = self.audit(component, since=since)
                if any(last(event) for event in events):
                    return events
                await asyncio.sleep(0.05)

    def audit_position(self) -> int:
        """Length of the audit log in bytes, for ``audit(since=…)``."""
        return Path(self.document["audit_log"]).stat().st_size

    def _events(self, since: int) -> Iterator[AuditEvent]:
        with Path(self.document["audit_log"]).open("rb") as log:
            log.seek(since)
            for line in log:
                if line.endswith(b"\n"):  # the last one may be half written
                    yield _event(json.loads(line))

    async def _run(self, program: str, args: tuple[str, ...], stdin: str | None) -> str:
        process = await asyncio.create_subprocess_exec(
            self.document["bin"][program],
            *args,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment(),
        )
        given = stdin.encode() if stdin is not None else None
        try:
            out, err = await asyncio.wait_for(process.communicate(given), _LIMIT_S)
        except (TimeoutError, asyncio.CancelledError):
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise CommandError(
                f"`{program} {' '.join(args)}` failed ({process.returncode}):"
                f" {err.decode().strip()} {out.decode().strip()}"
            )
        return out.decode()


def _event(raw: dict[str, Any]) -> AuditEvent:
    target = raw.get("objectRef") or {}
    return AuditEvent(
        user=raw["user"].get("username", ""),
        verb=raw["verb"],
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=int((raw.get("responseStatus") or {}).get("code", 0)),
        at=raw.get("requestReceivedTimestamp", ""),
    )
