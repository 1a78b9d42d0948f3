"""`inference-rollouts analysis run`: one Job of an AnalysisRun."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

BAD_INPUT = 2
NO_ANSWER = 4


def run(
    namespace: Annotated[str, typer.Option(envvar="POD_NAMESPACE", help="The Job's namespace.")],
    job: Annotated[str, typer.Option(envvar="JOB_NAME", help="The Job that this pod belongs to.")],
    canary_hash: Annotated[
        str, typer.Option(envvar="CANARY_HASH", help="podTemplateHashValue: Latest.")
    ] = "",
    stable_hash: Annotated[
        str, typer.Option(envvar="STABLE_HASH", help="podTemplateHashValue: Stable.")
    ] = "",
    config: Annotated[
        str, typer.Option(envvar="ANALYSIS_CONFIG", help="analysis.yaml, as text.")
    ] = "",
    kubeconfig: Annotated[str, typer.Option(help="Else the pod's own account.")] = "",
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON lines.")] = False,
) -> None:
    """Judge the canary of the AnalysisRun that made this Job, and print five lines.

    Exit code 0 and 1 are Argo's "succeeded" and "failed"; which of them an outcome takes depends
    on the AnalysisRun's measurements so far (docs/analysis.md). 2: this is no Job of an
    AnalysisRun; 4: the API server did not answer, or the AnalysisRun could not be read.
    """
    from inference_analysis.argo.connecting import connected  # noqa: PLC0415 - help is fast
    from inference_analysis.argo.working import job_result  # noqa: PLC0415 - help is fast
    from inference_analysis.errors import InputError  # noqa: PLC0415
    from inference_common.errors import KubeError  # noqa: PLC0415
    from inference_common.logs import configure_logging  # noqa: PLC0415

    async def work() -> tuple[tuple[str, ...], int]:
        kube = await connected(kubeconfig)
        try:
            return await job_result(
                kube,
                namespace,
                job,
                canary_hash=canary_hash,
                stable_hash=stable_hash,
                config=config,
            )
        finally:
            await kube.close()

    configure_logging("analysis", json=log_json)
    try:
        lines, code = asyncio.run(work())
    except InputError as error:
        print(f"inference-rollouts analysis run: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(BAD_INPUT) from error
    except KubeError as error:
        print(f"inference-rollouts analysis run: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(NO_ANSWER) from error
    sys.stdout.write("\n".join(lines) + "\n")
    raise typer.Exit(code)
