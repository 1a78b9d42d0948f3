"""`python -m support.simulated_vllm`: serve until SIGTERM, then drain and exit 0."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from support.simulated_vllm.settings import Settings, parse

_log = logging.getLogger("simulated_vllm")


async def serve(settings: Settings) -> None:
    """Load, serve, and on SIGTERM or SIGINT drain; a second signal ends the drain at once."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    if settings.load_s:
        # As in vLLM the port is closed while the model loads.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(signals.get(), settings.load_s)
            return

    from aiohttp import web  # noqa: PLC0415 - a signal during loading needs no HTTP

    from support.simulated_vllm.server import Server  # noqa: PLC0415

    server = Server(settings)
    runner = web.AppRunner(
        server.application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=settings.shutdown_timeout_s,
        # Longer than Envoy keeps an idle connection (1 h): a server that closes first resets
        # the request that is just being sent on it.
        keepalive_timeout=3700,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port, reuse_port=False).start()
    except OSError as error:
        await runner.cleanup()
        sys.exit(f"can't listen on {settings.host}:{settings.port}: {error}; is it in use?")
    names = ", ".join((*settings.served, *settings.adapters))
    _log.info("serving %s as %s on %s:%d", settings.version, names, settings.host, settings.port)
    await signals.get()
    server.draining = True
    _log.info("draining for %.1f s", settings.drain_s)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(signals.get(), settings.drain_s)
    await runner.cleanup()
    _log.info("stopped")


def main() -> None:
    """Run with the process's arguments."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    settings = parse(sys.argv[1:])
    try:
        from uvloop import run  # noqa: PLC0415 - half the CPU per token, but not on Windows
    except ImportError:
        from asyncio import run  # noqa: PLC0415
    run(serve(settings))


if __name__ == "__main__":
    main()
