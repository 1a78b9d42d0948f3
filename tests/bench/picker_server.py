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
from inference_picker.tls import Tls


async def serve(options: argparse.Namespace) -> None:
    """Print the ports as a JSON line, then serve until SIGTERM."""
    endpoints = [
        Endpoint(
            address=f"127.0.{1 + number // 250}.{1 + number % 250}:{options.upstream_port}",
            pod=f"model-5d9c7-{number}",
            version="5d9c7",
            models=frozenset({"base"}),
        )
        for number in range(options.pods)
    ]
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    served = Options(
        address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        watch_share=options.watch_share,
        tls=Tls() if options.tls else None,
        scrape_interval_s=options.scrape_interval_s,
    )
    async with serving(StaticSource(make_snapshot(endpoints)), served) as running:
        settle_memory()
        print(json.dumps([running.port, running.metrics_port]), flush=True)
        await stopping.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--upstream-port", type=int, default=8000)
    parser.add_argument("--watch-share", type=float, default=0.0)
    parser.add_argument("--scrape-interval-s", type=float, default=0.0)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    configure_logging("picker", json=True, level="warning")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options))


if __name__ == "__main__":
    main()
