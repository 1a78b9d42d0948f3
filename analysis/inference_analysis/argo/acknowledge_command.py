"""`inference-rollouts analysis acknowledge`: a person decides, and says why."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated, Literal

import typer

BAD_INPUT = 2
NO_ANSWER = 4


def acknowledge(
    namespace: Annotated[str, typer.Option(help="The Rollout's namespace.")],
    rollout: Annotated[str, typer.Option(help="The Rollout's name.")],
    by: Annotated[str, typer.Option(help="Who decides.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    decision: Annotated[
        Literal["", "proceed", "abort"],
        typer.Option(help="What a verdict that waits for a person (maxWait) becomes."),
    ] = "",
    canary_hash: Annotated[str, typer.Option(help="Else the Rollout's current one.")] = "",
    kubeconfig: Annotated[str, typer.Option(help="Else $KUBECONFIG or ~/.kube/config.")] = "",
) -> None:
    """Let a canary that failed twice be judged again, or decide an inconclusive one that waits.

    It is kept in the ledger, with name, reason and time, and shown by every later verdict. Exit
    code 0: written; 2: there is no such Rollout or nothing was judged; 4: the API server did not
    answer, or the ledger could not be written.
    """
    from inference_analysis.argo.books import (  # noqa: PLC0415 - help is fast
        Acknowledgement,
        Book,
        book_key,
    )
    from inference_analysis.argo.connecting import connected  # noqa: PLC0415 - help is fast
    from inference_analysis.argo.store import Store  # noqa: PLC0415
    from inference_analysis.errors import InputError, LedgerError  # noqa: PLC0415
    from inference_common.errors import KubeError  # noqa: PLC0415
    from inference_common.kube import ROLLOUT  # noqa: PLC0415

    def said(book: Book) -> Book:
        if not book.entries:
            raise InputError(
                f"the ledger of Rollout {namespace}/{rollout} has no verdict on that canary"
            )
        tries = max((s.epoch for s in book.ledger.segments), default=1) if book.ledger else 1
        return book.with_acknowledgement(
            Acknowledgement(
                by=by, reason=reason, at=time.time(), epoch=tries + 1, decision=decision
            )
        )

    async def work() -> str:
        kube = await connected(kubeconfig)
        try:
            found = await kube.get(ROLLOUT, rollout, namespace)
            version = canary_hash or found.get("status", {}).get("currentPodHash", "")
            store = Store(kube, namespace, rollout, found["metadata"]["uid"])
            book = await store.change(book_key(version, "live"), said)
        finally:
            await kube.close()
        item = book.acknowledgements[-1]
        return (
            f"{version}: {item.by} has acknowledged up to try {item.epoch}"
            + (f" and decided to {item.decision}" if item.decision else "")
            + f": {item.reason}"
        )

    try:
        text = asyncio.run(work())
    except (InputError, KubeError, LedgerError) as error:
        print(f"inference-rollouts analysis acknowledge: {error}", file=sys.stderr)  # noqa: T201
        bad = isinstance(error, InputError) or (isinstance(error, KubeError) and error.not_found)
        raise typer.Exit(BAD_INPUT if bad else NO_ANSWER) from error
    print(text)  # noqa: T201
