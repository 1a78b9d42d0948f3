"""``inference-rollouts plugin``: the traffic-router plugin's own commands."""

from __future__ import annotations

import asyncio
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from inference_plugin.explain.command import explain
from inference_plugin.lint.command import lint

app = typer.Typer(help="The traffic-router plugin of Argo Rollouts.", no_args_is_help=True)
app.command()(explain)
app.command()(lint)


@app.callback()
def root() -> None:
    """The traffic-router plugin of Argo Rollouts."""


@app.command()
def serve(
    socket: Annotated[Path, typer.Option(help="Unix socket that the bridge connects to.")],
    metrics_address: Annotated[
        str | None, typer.Option(help="HOST:PORT for Prometheus metrics; none if left out.")
    ] = None,
    kubeconfig: Annotated[
        str | None, typer.Option(help="Kubeconfig; else $KUBECONFIG, ~/.kube/config, in-cluster.")
    ] = None,
    allow_namespace: Annotated[
        list[str] | None,
        typer.Option(
            help="Another namespace than the Rollout's in which it may name routes; '*' for any."
        ),
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the bridge until the process is told to stop."""
    # gRPC and the Kubernetes client take their time to import; --help does not need them.
    from inference_common.logs import configure_logging  # noqa: PLC0415
    from inference_plugin.carriers import Permissions  # noqa: PLC0415
    from inference_plugin.server import Settings, serve  # noqa: PLC0415

    configure_logging("plugin", json=log_json, level=log_level)
    settings = Settings(
        socket=socket,
        metrics=_address(metrics_address),
        kubeconfig=kubeconfig,
        permissions=Permissions(namespaces=frozenset(allow_namespace or ())),
    )
    with asyncio.Runner(loop_factory=_new_loop()) as runner:
        runner.run(serve(settings))


def _new_loop() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise typer.BadParameter(f"{text!r} is not HOST:PORT, for example 127.0.0.1:9090")
    return host, int(port)
