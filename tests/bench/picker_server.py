"""A picker over a fixed pool, in a process of its own, so that its CPU time can be told apart."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal

import uvloop

from inference_common.logs import configure_logging
from inference_picker.pool import Endpoint, StaticSource, make_snapshot
from inference_picker.serving import Options, serving, settle_memory


async def serve(pods: int, upstream_port: int, watch_share: float) -> None:
    """Print the ports as a JSON line, then serve until SIGTERM."""
    endpoints = [
        Endpoint(
            address=f"127.0.{1 + number // 250}.{1 + number % 250}:{upstream_port}",
            pod=f"model-5d9c7-{number}",
            version="5d9c7",
            models=frozenset({"base"}),
        )
        for number in range(pods)
    ]
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    options = Options(
        address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        watch_share=watch_share,
    )
    async with serving(StaticSource(make_snapshot(endpoints)), options) as running:
        settle_memory()
        print(json.dumps([running.port, running.metrics_port]), flush=True)
        await stopping.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--upstream-port", type=int, default=8000)
    parser.add_argument("--watch-share", type=float, default=0.0)
    options = parser.parse_args()
    configure_logging("picker", json=True, level="warning")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.pods, options.upstream_port, options.watch_share))


if __name__ == "__main__":
    main()
