"""Command line: ``python -m support.gateway``; ``bootstrap`` writes Envoy's bootstrap."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import signal
from pathlib import Path

from inference_common.logs import configure_logging
from support.gateway.bootstrap import write_bootstrap
from support.gateway.controller import serve

_ADMIN_PORT = 9901


def main() -> None:
    """Run the controller until SIGTERM or SIGINT, or write the bootstrap."""
    parser = argparse.ArgumentParser(prog="python -m support.gateway", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve", "bootstrap"], default="serve")
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG")
    parser.add_argument("--network", type=_loopback, help="the cluster's 127.A.0.0/16")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--admin-port", type=int, default=_ADMIN_PORT)
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args()
    if options.network is None:
        parser.error("--network is missing: the cluster's loopback network, such as 127.20.0.0/16")
    if options.command == "bootstrap":
        host = str(next(ipaddress.ip_network(options.network).hosts()))
        print(write_bootstrap(options.state_dir, host, options.admin_port))
        return
    configure_logging("gateway", json=True, level=options.log_level)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_signal(options))


async def _until_signal(options: argparse.Namespace) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, task.cancel)
    await serve(options.kubeconfig, options.network, options.state_dir)


def _loopback(text: str) -> str:
    network = ipaddress.ip_network(text)
    if not (network.is_loopback and network.prefixlen == 16):
        raise argparse.ArgumentTypeError(f"{text} is no loopback /16, such as 127.20.0.0/16")
    return str(network)


if __name__ == "__main__":
    main()
