"""`make demo`, inside `python -m support.cluster exec`, which builds and starts the cluster."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from support.cluster.client import ClusterClient
from support.demo.acts import lora
from support.demo.ejected import ejected
from support.demo.judged import judged
from support.demo.stage import UnexpectedVerdictError
from support.demo.view import summaries, verdicts
from support.scenario import Scenario

if TYPE_CHECKING:
    from support.demo.stage import Stage

_INTRODUCTION = """
[bold]Progressive delivery of LLM inference, on a real cluster on this machine.[/bold]
The real Argo Rollouts controller moves streaming requests through a real Envoy, between two
versions of a (simulated) vLLM, inside one pool too, and between two LoRA adapters. Whether a
version goes on is decided by the analysis, which compares its pods with the stable ones in a real
Prometheus.
"""

_NEXT = """
[bold]Try it yourself[/bold]
  make up              a cluster that stays; run the export lines it prints
  kubectl apply -f manifests/examples/base-model-canary.yaml
  kubectl argo rollouts get rollout mymodel --watch
  make down
docs/plugin.md lists the configuration and what each Event means, docs/analysis.md what a verdict
means and how to get one.
"""


async def play(console: Console) -> int:
    """Play all acts; the exit status is 1 when a request failed or a verdict was not expected."""
    console.print(_INTRODUCTION)
    cluster = ClusterClient.load()
    stages: list[Stage] = []
    for name, act in (
        ("demo-base-model", judged),
        ("demo-shared-pool", ejected),
        ("demo-lora", lora),
    ):
        scenario = await Scenario.start(cluster, name)
        try:
            stages += await act(console, scenario)
        except UnexpectedVerdictError as error:
            console.print(str(error), markup=False, highlight=False)
            return 1
        finally:
            await scenario.stop()
    rows = [row for stage in stages for row in stage.rows]
    said = [verdict for stage in stages for verdict in stage.verdicts]
    console.print(verdicts(said))
    console.print("\n[bold]What was set, and what was served[/bold] (with exact 95 % intervals)")
    for table in summaries(rows):
        console.print(table)
    answers = sum(row.window.total for row in rows)
    harmed = sum(len(row.window.failures) for row in rows if row.harmed)
    failed = sum(len(row.window.failures) for row in rows) - harmed
    console.print(
        f"{answers} answers in these steps, {failed} failed requests, besides {harmed} until the "
        "broken version was kept from users."
    )
    for row in rows:
        for failure in row.window.failures[:3] if not row.harmed else ():
            console.print(f"  {row.step}: {failure}", style="red")
    console.print(_NEXT, highlight=False)
    return 1 if failed else 0


def main() -> int:
    """Play the demo; Ctrl-C ends it without a traceback."""
    console = Console()
    try:
        return asyncio.run(play(console))
    except KeyboardInterrupt:
        console.print("\nStopped. The cluster ends with the demo.")
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
