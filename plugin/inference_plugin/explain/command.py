"""``inference-rollouts plugin explain``: look at a live Rollout, write nothing."""

from __future__ import annotations

import asyncio
import json as json_text
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from inference_plugin.explain.explanation import Explanation

SETTLED: Final = 0
UNDER_WAY: Final = 1
FAILED: Final = 2


def explain(
    rollout: Annotated[str, typer.Argument(metavar="NAMESPACE/ROLLOUT")],
    kubeconfig: Annotated[
        str | None, typer.Option(help="Kubeconfig; else $KUBECONFIG, ~/.kube/config, in-cluster.")
    ] = None,
    allow_namespace: Annotated[
        list[str] | None, typer.Option(help="As the server's option of that name.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Tell what the server would write for a Rollout now, and what it waits for.

    Exit code 0: the weights are in place and verified; 1: something would be written, or is
    awaited; 2: the Rollout can't be explained, or its configuration is refused. Nothing is written;
    rights to read suffice.
    """
    from rich.console import Console  # noqa: PLC0415 - help is fast

    from inference_common.errors import KubeError  # noqa: PLC0415
    from inference_common.logs import configure_logging  # noqa: PLC0415
    from inference_plugin.explain.live import Unread  # noqa: PLC0415
    from inference_plugin.explain.report import show  # noqa: PLC0415

    namespace, slash, name = rollout.partition("/")
    if not slash or not namespace or not name:
        raise typer.BadParameter(f"{rollout!r} is not NAMESPACE/ROLLOUT, for example llm/chat")
    configure_logging("plugin", json=False, level="warning")
    try:
        found = asyncio.run(_explain(namespace, name, kubeconfig, frozenset(allow_namespace or ())))
    except (KubeError, Unread) as error:
        typer.echo(f"explain: {error}", err=True)
        raise typer.Exit(FAILED) from error
    if found is None:
        typer.echo(
            f"explain: Rollout {rollout} is not routed by this plugin: it has no "
            'spec.strategy.canary.trafficRouting.plugins["inference-rollouts/router"].',
            err=True,
        )
        raise typer.Exit(FAILED)
    if json:
        typer.echo(json_text.dumps(found.as_json(), indent=2))
    else:
        show(found, Console(highlight=False))
    if found.problem:
        raise typer.Exit(FAILED)
    raise typer.Exit(SETTLED if found.settled else UNDER_WAY)


async def _explain(
    namespace: str, name: str, kubeconfig: str | None, allowed: frozenset[str]
) -> Explanation | None:
    from inference_common.kube import ROLLOUT  # noqa: PLC0415
    from inference_plugin.carriers import Permissions  # noqa: PLC0415
    from inference_plugin.explain.explanation import explain as explained  # noqa: PLC0415
    from inference_plugin.explain.live import NarrowKube, view_of  # noqa: PLC0415

    kube = await NarrowKube.connect(kubeconfig)
    try:
        rollout = await kube.get(ROLLOUT, name, namespace)
        async with view_of(kube, rollout) as view:
            uid = rollout["metadata"]["uid"]
            return explained(
                rollout,
                view,
                available=lambda one: view.available(namespace, uid, one),
                now=time.time(),
                permissions=Permissions(namespaces=allowed),
            )
    finally:
        await kube.close()
