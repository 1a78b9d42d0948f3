"""`inference-rollouts analysis serve`: the Web provider's endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path  # noqa: TC003 - typer reads it from the signature
from typing import Annotated

import typer

BAD_INPUT = 2


def serve(
    config: Annotated[
        Path, typer.Option(help="analysis.yaml; its prometheus and quality are used.")
    ],
    address: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:8080",
    kubeconfig: Annotated[str, typer.Option(help="Else the pod's own account.")] = "",
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON lines.")] = False,
) -> None:
    """Answer the measurements of AnalysisTemplates made with `--provider web`.

    Exit code 0 after SIGTERM; 2: analysis.yaml or the address cannot be used.
    """
    from aiohttp import web  # noqa: PLC0415 - help is fast

    from inference_analysis.argo.connecting import connected  # noqa: PLC0415 - help is fast
    from inference_analysis.argo.serving import PINNED, application  # noqa: PLC0415
    from inference_analysis.argo.settings import analysis_document, tree  # noqa: PLC0415
    from inference_analysis.errors import InputError  # noqa: PLC0415
    from inference_common.logs import configure_logging  # noqa: PLC0415

    async def work(host: str, port: int, pinned: dict[str, object]) -> None:
        kube = await connected(kubeconfig)
        runner = web.AppRunner(application(kube, pinned), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            stopped = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                with contextlib.suppress(NotImplementedError):
                    asyncio.get_running_loop().add_signal_handler(number, stopped.set)
            await stopped.wait()
        finally:
            await runner.cleanup()
            await kube.close()

    configure_logging("analysis", json=log_json)
    try:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"--address {address!r}: expected HOST:PORT")
        values = tree(config.read_text(), str(config))
        analysis_document(values, str(config)).prometheus.access()
        asyncio.run(work(host, int(port), {name: values.get(name) for name in PINNED}))
    except (InputError, OSError) as error:
        for line in str(error).splitlines():
            print(f"inference-rollouts analysis serve: {line}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(BAD_INPUT) from error
