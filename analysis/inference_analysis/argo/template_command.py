"""`inference-rollouts analysis template`: AnalysisTemplates and rights, as YAML."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it from the signature
from typing import Annotated, Any, Literal

import typer

BAD_INPUT = 2


def template(
    name: Annotated[str, typer.Option(help="Name of the AnalysisTemplate.")] = "canary-analysis",
    prometheus: Annotated[str, typer.Option(help="Address up to what precedes /api/v1.")] = "",
    config: Annotated[
        Path | None, typer.Option(help="analysis.yaml (docs/analysis.md); options go over it.")
    ] = None,
    provider: Annotated[
        Literal["job", "web"], typer.Option(help="web needs `analysis serve`; any Argo version.")
    ] = "job",
    background: Annotated[
        bool, typer.Option("--background", help="For the Rollout's background analysis.")
    ] = False,
    mode: Annotated[Literal["", "guard", "prove"], typer.Option(help="policy.mode.")] = "",
    after: Annotated[str, typer.Option(help="look.after, e.g. 10m.")] = "",
    ledger: Annotated[
        Literal["", "live", "shadow"], typer.Option(help="shadow: shown, without effect.")
    ] = "",
    namespace: Annotated[str, typer.Option(help="Written into the objects.")] = "",
    image: Annotated[str, typer.Option(help="Image of the Jobs.")] = "",
    secret: Annotated[
        str, typer.Option(help="Secret with credentials, mounted at /etc/inference-analysis.")
    ] = "",
    service: Annotated[
        str, typer.Option(help="Address of `analysis serve`, for --provider web.")
    ] = "http://inference-analysis:8080",
    rbac: Annotated[bool, typer.Option(help="Also the ServiceAccount, Role, RoleBinding.")] = True,
) -> None:
    """Write an AnalysisTemplate for `kubectl apply -f -`, and what to put into the Rollout.

    Exit code 0: written; 2: an option or analysis.yaml cannot be used.
    """
    from inference_analysis.argo import templates  # noqa: PLC0415 - help is fast
    from inference_analysis.argo.settings import (  # noqa: PLC0415
        DEFAULTS_CONFIGMAP,
        analysis_document,
        merged,
        tree,
    )
    from inference_analysis.errors import InputError  # noqa: PLC0415

    given: dict[str, Any] = {}
    if prometheus:
        given["prometheus"] = {"url": prometheus}
    if mode:
        given["policy"] = {"mode": mode}
    if after:
        given["look"] = {"after": after}
    if ledger:
        given["ledger"] = ledger
    where = str(config) if config else "the options"
    try:
        values = merged(tree(config.read_text(), where) if config else {}, given)
        elsewhere = {} if "prometheus" in values else {"prometheus": {"url": "http://defaults"}}
        settings = analysis_document(values | elsewhere, where)
    except (InputError, OSError) as error:
        for line in str(error).splitlines():
            print(f"inference-rollouts analysis template: {line}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(BAD_INPUT) from error
    if elsewhere and provider == "job":
        print(  # noqa: T201
            "inference-rollouts analysis template: prometheus is not set, so it must be in the "
            f"ConfigMap {DEFAULTS_CONFIGMAP} of the Rollout's namespace",
            file=sys.stderr,
        )
    wanted = templates.Wanted(
        name=name,
        namespace=namespace,
        image=image or templates.IMAGE,
        secret=secret,
        service=service,
    )
    if provider == "web":
        body = templates.web_template(wanted, values, settings, background=background)
    else:
        body = templates.job_template(wanted, values, background=background)
    objects = [body, *(templates.rights(wanted) if rbac and provider == "job" else [])]
    shown = templates.Wanted(name=body["metadata"]["name"])
    usage = templates.step(shown, provider)
    place = {"analysis": usage} if background else {"steps": [{"analysis": usage}]}
    strategy = templates.yaml_of({"spec": {"strategy": {"canary": place}}})
    heading = "In the Rollout" + (":" if background else ", after a setWeight:")
    sys.stdout.write("".join(f"# {line}\n" for line in (heading, *strategy.splitlines())))
    sys.stdout.write("---\n" + templates.yaml_of(*objects))
