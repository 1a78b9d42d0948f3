"""``inference-rollouts plugin doctor``: look at an installation, change nothing."""

from __future__ import annotations

import asyncio
import json as json_text
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from inference_plugin.doctor.checks import Check
    from inference_plugin.doctor.installation import Questions

WELL: Final = 0
WARNED: Final = 1
FAILED: Final = 2
_STYLE: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def doctor(
    argo_namespace: Annotated[
        str, typer.Option(help="Where Argo Rollouts is installed.")
    ] = "argo-rollouts",
    service_account: Annotated[
        str | None,
        typer.Option(help="NAMESPACE/NAME that the server runs as; else its Deployment's."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Look at the Rollouts of this namespace only.")
    ] = None,
    socket: Annotated[Path | None, typer.Option(help="The server's unix socket.")] = None,
    server: Annotated[str | None, typer.Option(help="The server's HOST:PORT, with TLS.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file, as the bridge's.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file, as the bridge's.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="PEM file, as the bridge's.")] = None,
    tls_server_name: Annotated[
        str | None, typer.Option(help="Name in the server's certificate, if not its host.")
    ] = None,
    kubeconfig: Annotated[
        str | None, typer.Option(help="Kubeconfig; else $KUBECONFIG, ~/.kube/config, in-cluster.")
    ] = None,
    allow_namespace: Annotated[
        list[str] | None, typer.Option(help="As the server's option of that name.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Find what is wrong with an installation.

    Exit code 0: nothing failed (with --strict: nothing warned either); 1: warnings, with --strict;
    2: something failed. Nothing is changed.
    """
    from inference_common.errors import KubeUnconfigured  # noqa: PLC0415 - help is fast
    from inference_common.logs import configure_logging  # noqa: PLC0415
    from inference_plugin.doctor.installation import Questions  # noqa: PLC0415
    from inference_plugin.doctor.server import Door  # noqa: PLC0415

    if service_account is not None and service_account.count("/") != 1:
        raise typer.BadParameter(f"{service_account!r} is not NAMESPACE/NAME")
    configure_logging("plugin", json=False, level="error")
    questions = Questions(
        argo_namespace=argo_namespace,
        account=service_account,
        namespace=namespace,
        allowed=frozenset(allow_namespace or ()),
        door=Door(
            socket=socket,
            address=server,
            certificate=tls_cert,
            key=tls_key,
            authority=tls_ca,
            server_name=tls_server_name,
        ),
    )
    try:
        checks = asyncio.run(_examine(kubeconfig, questions))
    except KubeUnconfigured as error:
        typer.echo(f"doctor: {error}", err=True)
        raise typer.Exit(FAILED) from error
    if json:
        typer.echo(json_text.dumps([each.as_json() for each in checks], indent=2))
    else:
        _show(checks)
    found = {each.status.value for each in checks}
    if "fail" in found:
        raise typer.Exit(FAILED)
    raise typer.Exit(WARNED if strict and "warn" in found else WELL)


async def _examine(kubeconfig: str | None, questions: Questions) -> list[Check]:
    from inference_plugin.doctor.installation import examine  # noqa: PLC0415
    from inference_plugin.explain.live import NarrowKube  # noqa: PLC0415

    kube = await NarrowKube.connect(kubeconfig)
    try:
        return [check async for check in examine(kube, questions)]
    finally:
        await kube.close()


def _show(checks: list[Check]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    width = max((len(each.status.value) for each in checks), default=0)
    for each in checks:
        line = Text(f"{each.status.value:<{width}}  ", style=_STYLE[each.status.value])
        line.append(f"{each.name}: ", style="bold").append(each.found, style="default")
        console.print(line, soft_wrap=True)
        if each.remedy:
            console.print(Text(f"{'':<{width}}  → {each.remedy}"), soft_wrap=True)
    counts = {status: sum(each.status.value == status for each in checks) for status in _STYLE}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
