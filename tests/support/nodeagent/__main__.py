"""Command line of the node agent."""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from inference_common.kube import Kube
from inference_common.logs import configure_logging
from support.cluster.layout import default_state_dir
from support.nodeagent.agent import NodeAgent
from support.nodeagent.places import Cluster


def cluster_of(kubeconfig: Path, root: Path) -> Cluster:
    """The API server of a kubeconfig's current context; its CA is copied into ``root``."""
    config: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    contexts = {entry["name"]: entry["context"] for entry in config["contexts"]}
    clusters = {entry["name"]: entry["cluster"] for entry in config["clusters"]}
    cluster = clusters[contexts[config["current-context"]]["cluster"]]
    if (data := cluster.get("certificate-authority-data")) is not None:
        certificate = base64.b64decode(data)
    else:
        certificate = (kubeconfig.parent / cluster["certificate-authority"]).read_bytes()
    ca_file = root / "node-agent" / "ca.crt"
    ca_file.parent.mkdir(parents=True, exist_ok=True)
    ca_file.write_bytes(certificate)
    url = urlsplit(cluster["server"])
    if url.hostname is None:
        raise SystemExit(f"{kubeconfig}: server {cluster['server']!r} has no host")
    return Cluster(host=url.hostname, port=url.port or 443, ca_file=ca_file)


async def serve(arguments: argparse.Namespace) -> None:
    """Run the node until SIGTERM or SIGINT."""
    root: Path = arguments.state_dir.resolve()
    cluster = cluster_of(arguments.kubeconfig, root)
    kube = await Kube.connect(str(arguments.kubeconfig))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with NodeAgent(
            kube,
            network=arguments.network,
            root=root,
            cluster=cluster,
            names=[f"{arguments.name}-{index + 1}" for index in range(arguments.nodes)],
        ):
            await stop.wait()
    finally:
        await kube.close()


def print_logs(arguments: argparse.Namespace) -> int:
    """Print the logs of the pods of that name, the newest last."""
    prefix = f"{arguments.namespace}_{arguments.pod}_"
    root: Path = arguments.state_dir / "pods"
    found = sorted(root.glob(f"{prefix}*/*.log"), key=lambda path: path.stat().st_mtime)
    wanted = [path for path in found if arguments.container in {None, path.stem}]
    for path in wanted:
        print(f"==> {path} <==")
        sys.stdout.write(path.read_text(errors="replace"))
    if not wanted:
        print(f"no log of {arguments.namespace}/{arguments.pod} in {root}", file=sys.stderr)
    return 0 if wanted else 1


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="support.nodeagent", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="of the node agent's user")
    parser.add_argument("--network", help="127.A.0.0/16, the pods' addresses")
    where = default_state_dir()
    parser.add_argument("--state-dir", type=Path, default=where, help=f"default {where}")
    parser.add_argument("--name", default="local", help="nodes are NAME-1, NAME-2, ...")
    parser.add_argument("--nodes", type=int, default=1, help="how many Node objects (default 1)")
    parser.add_argument("--log-level", default="info")
    commands = parser.add_subparsers(dest="command")
    logs = commands.add_parser("logs", help="print a pod's logs, also of one that is gone")
    logs.add_argument("namespace")
    logs.add_argument("pod")
    logs.add_argument("--container")
    arguments = parser.parse_args()
    if arguments.command == "logs":
        return print_logs(arguments)
    if arguments.kubeconfig is None or arguments.network is None:
        parser.error("--kubeconfig and --network are needed")
    configure_logging("node-agent", json=not os.isatty(2), level=arguments.log_level)
    asyncio.run(serve(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
