"""Bring a cluster up in the right order, keep it running, take it down."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

from inference_common.kube import Kube
from inference_common.logs import configure_logging
from support.cluster import control_plane, objects, parts
from support.cluster.layout import RUN_VARIABLE, STATE_VARIABLE, Layout, clusters_folder
from support.cluster.network import (
    ENVOY_ADMIN_PORT,
    PLUGIN_METRICS_PORT,
    PROMETHEUS_PORT,
    Network,
    claim_network,
)
from support.cluster.process import spawn
from support.cluster.supervisor import ClusterError, Supervisor, exit_code
from support.toolchain import ToolchainError, ensure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from support.cluster.component import Component
    from support.toolchain import Toolchain

_log = structlog.get_logger()

OPTIONAL: Final = (
    "prometheus",
    "node-agent",
    "gateway",
    "envoy",
    "bridge",
    "plugin",
    "argo-rollouts",
)
"""Parts that a cluster can do without (``--without``)."""

# What no process of the cluster may inherit: it would reach for another cluster or a proxy.
_DROPPED: Final = ("KUBECONFIG", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


def run(layout: Layout, run_id: str, without: Collection[str], report: TextIO) -> int:
    """Run a cluster until SIGTERM. Returns the exit code; ``report`` hears of the start."""
    configure_logging("cluster", json=False)
    return asyncio.run(_Cluster(layout, run_id, frozenset(without), report).run())


class _Cluster:
    def __init__(
        self, layout: Layout, run_id: str, without: frozenset[str], report: TextIO
    ) -> None:
        self._layout = layout
        self._without = without
        self._report: TextIO | None = report
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _DROPPED},
            RUN_VARIABLE: run_id,
            STATE_VARIABLE: str(layout.state_dir),
        }
        self._supervisor = Supervisor(layout, self._environment, self._tell_ready)
        self._started = time.monotonic()

    async def run(self) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        claim = claim_network(clusters_folder() / "networks")
        kube: Kube | None = None
        try:
            starting = asyncio.create_task(self._start(claim.network))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                with suppress(asyncio.CancelledError):
                    await starting
                return 1
            kube = starting.result()
            await stopping
        except (ClusterError, ToolchainError, ExceptionGroup) as error:
            errors = [str(cause) for cause in _causes(error)]
            _log.error("the cluster could not start", errors=errors)
            self._tell({"event": "failed", "error": "\n".join(errors)})
            return 1
        finally:
            self._layout.document.unlink(missing_ok=True)
            await self._supervisor.stop()
            if kube is not None:
                await kube.close()
            claim.lock.close()
        return 0

    async def _start(self, network: Network) -> Kube:
        layout, start = self._layout, self._supervisor.start
        for folder in layout.folders():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tools = ensure(without=["bridge"] if "bridge" in self._without else [])
        keys = control_plane.issue(layout, network)
        # Reading 3 MB of YAML takes a second, which fits beside the API server's start.
        await start(control_plane.etcd(layout, network, keys, tools))
        apiserver = asyncio.create_task(
            start(control_plane.kube_apiserver(layout, network, keys, tools))
        )
        await asyncio.sleep(0)
        crds = objects.custom_resources(tools)
        installed = objects.installation(tools)
        await apiserver
        kube = await Kube.connect(str(layout.kubeconfig("admin")))
        async with asyncio.TaskGroup() as group:
            group.create_task(
                start(control_plane.kube_controller_manager(layout, network, keys, tools))
            )
            group.create_task(self._install(kube, network, tools, crds, installed))
        self._link_programs(tools)
        self._write_document(network, tools)
        self._tell({"event": "up", "seconds": time.monotonic() - self._started})
        self._close_report()
        return kube

    async def _install(
        self,
        kube: Kube,
        network: Network,
        tools: Toolchain,
        crds: list[dict[str, Any]],
        installed: list[dict[str, Any]],
    ) -> None:
        layout = self._layout
        namespaces = [item for item in installed if item["kind"] == "Namespace"]
        await objects.create_all(kube, [*namespaces, *crds])
        await objects.create_all(kube, [item for item in installed if item not in namespaces])
        if "bridge" not in self._without:
            config = objects.argo_config(tools.binary("bridge"), layout.plugin_socket)
            await objects.create_all(kube, [config])
        await objects.established(kube, [item["metadata"]["name"] for item in crds])
        await objects.create(kube, objects.gateway_class())
        self._tell({"event": "installed", "seconds": time.monotonic() - self._started})
        async with asyncio.TaskGroup() as group:
            for part in await self._parts(kube, network, tools):
                group.create_task(self._supervisor.start(part))

    async def _parts(self, kube: Kube, network: Network, tools: Toolchain) -> list[Component]:
        layout = self._layout
        builders: dict[str, Callable[[], Component]] = {
            "prometheus": lambda: parts.prometheus(layout, network, tools),
            "node-agent": lambda: parts.node_agent(layout, network, kube),
            "gateway": lambda: parts.gateway(layout, network, kube),
            "envoy": lambda: parts.envoy(layout, network),
            "plugin": lambda: parts.plugin(layout, network),
            "argo-rollouts": lambda: parts.argo_rollouts(layout, network, tools),
        }
        if "envoy" not in self._without:
            await self._write_bootstrap(network)
        return [build() for name, build in builders.items() if name not in self._without]

    async def _write_bootstrap(self, network: Network) -> None:
        process = spawn(
            parts.gateway_bootstrap(self._layout, network),
            env={**self._environment, **parts.PYTHON_PATH},
            cwd=self._layout.state_dir,
            log=self._layout.log("gateway-bootstrap"),
        )
        code = await exit_code(process)
        if code != 0:
            log = self._layout.log("gateway-bootstrap")
            raise ClusterError(f"Envoy's bootstrap was not written (exit code {code}); see {log}")

    def _link_programs(self, tools: Toolchain) -> None:
        for name, path in tools.binaries.items():
            link = self._layout.bin / name
            link.unlink(missing_ok=True)
            link.symlink_to(path)

    def _write_document(self, network: Network, tools: Toolchain) -> None:
        layout = self._layout
        document = {
            "state_dir": str(layout.state_dir),
            "kubeconfig": str(layout.kubeconfig("admin")),
            "kubeconfigs": {user: str(layout.kubeconfig(user)) for user in control_plane.USERS},
            "users": {part: user for part, (user, _) in control_plane.USERS.items()},
            "apiserver": control_plane.apiserver_url(network),
            "bin": {name: str(path) for name, path in tools.binaries.items()},
            "bin_dir": str(layout.bin),
            "prometheus": f"http://{network.host}:{PROMETHEUS_PORT}",
            "audit_log": str(layout.audit_log),
            "network": network.cidr,
            "argo_metrics": f"http://127.0.0.1:{network.argo_metrics_port}/metrics",
            "plugin_metrics": f"http://{network.host}:{PLUGIN_METRICS_PORT}/metrics",
            "envoy_admin": f"http://{network.host}:{ENVOY_ADMIN_PORT}",
            "plugin_socket": str(layout.plugin_socket),
            "processes": {
                name: {"pid_file": str(layout.pid_file(name)), "log": str(layout.log(name))}
                for name in self._supervisor.names()
            },
        }
        temporary = layout.document.with_suffix(".new")
        temporary.write_text(json.dumps(document, indent=2))
        temporary.rename(layout.document)

    def _tell_ready(self, name: str, seconds: float) -> None:
        self._tell({"event": "ready", "name": name, "seconds": seconds})

    def _tell(self, event: dict[str, Any]) -> None:
        _log.info(event["event"], **{key: event[key] for key in event if key != "event"})
        if self._report is not None:
            # Nobody listens any more when the command that started us was stopped.
            with suppress(BrokenPipeError):
                print(json.dumps(event), file=self._report, flush=True)

    def _close_report(self) -> None:
        if self._report is not None:
            with suppress(BrokenPipeError):
                self._report.close()
            self._report = None


def _causes(error: Exception) -> list[Exception]:
    """Return what went wrong: the group's innermost errors, or the error itself."""
    if isinstance(error, ExceptionGroup):
        return [cause for inner in error.exceptions for cause in _causes(inner)]
    return [error]
