"""`inference-rollouts analysis history`: what a Rollout's canaries were told, and by whom."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

BAD_INPUT = 2
NO_ANSWER = 4


def history(
    namespace: Annotated[str, typer.Option(help="The Rollout's namespace.")],
    rollout: Annotated[str, typer.Option(help="The Rollout's name.")],
    canary_hash: Annotated[str, typer.Option(help="Else the Rollout's current one.")] = "",
    shadow: Annotated[bool, typer.Option("--shadow", help="The looks that do not count.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole book, with the last comparison.")
    ] = False,
    kubeconfig: Annotated[str, typer.Option(help="Else $KUBECONFIG or ~/.kube/config.")] = "",
) -> None:
    """Print the verdicts on one canary and what people said about them, oldest first.

    Exit code 0: printed; 2: there is no such Rollout, or nothing was judged; 4: the API server
    did not answer.
    """
    from inference_analysis.argo.books import Book, book_key  # noqa: PLC0415 - help is fast
    from inference_analysis.argo.connecting import connected  # noqa: PLC0415
    from inference_analysis.argo.store import Store  # noqa: PLC0415
    from inference_analysis.errors import InputError  # noqa: PLC0415
    from inference_common.errors import KubeError  # noqa: PLC0415
    from inference_common.kube import ROLLOUT  # noqa: PLC0415

    async def work() -> Book:
        kube = await connected(kubeconfig)
        try:
            found = await kube.get(ROLLOUT, rollout, namespace)
            version = canary_hash or found.get("status", {}).get("currentPodHash", "")
            store = Store(kube, namespace, rollout, found["metadata"]["uid"])
            book = await store.read(book_key(version, "shadow" if shadow else "live"))
        finally:
            await kube.close()
        if not book.entries and not book.acknowledgements:
            raise InputError(
                f"nothing was judged of canary {version} of Rollout {namespace}/{rollout}"
            )
        return book

    try:
        book = asyncio.run(work())
    except (InputError, KubeError) as error:
        print(f"inference-rollouts analysis history: {error}", file=sys.stderr)  # noqa: T201
        bad = isinstance(error, InputError) or error.not_found
        raise typer.Exit(BAD_INPUT if bad else NO_ANSWER) from error
    if as_json:
        print(json.dumps(book.model_dump(mode="json", by_alias=True), indent=2, sort_keys=True))  # noqa: T201
        return
    told = [(entry.at, entry.lines) for entry in book.entries]
    told += [
        (item.at, [f"{item.by}: {item.decision or 'try again'}: {item.reason}"])
        for item in book.acknowledgements
    ]
    for at, lines in sorted(told):
        print(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ"))  # noqa: T201
        print("\n".join(f"  {line}" for line in lines))  # noqa: T201
