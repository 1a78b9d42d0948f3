"""`inference-rollouts analysis lint`: mistakes in AnalysisTemplates and Rollouts."""

from __future__ import annotations

import re
import sys
from pathlib import Path  # noqa: TC003 - typer reads it from the signature
from typing import Annotated

import typer

MISTAKES = 1
BAD_INPUT = 2


def lint(
    files: Annotated[list[Path], typer.Argument(help="YAML files, or - for standard input.")],
    argo_version: Annotated[str, typer.Option(help="Of the cluster's controller, e.g. 1.9.")] = "",
) -> None:
    """Find what makes a verdict wrong without any error: limits, arguments, ledgers, loads.

    Give the Rollouts together with their templates. Exit code 0: nothing, or remarks only; 1:
    mistakes; 2: a file cannot be read.
    """
    import yaml  # noqa: PLC0415 - help is fast

    from inference_analysis.argo.linting import mistakes  # noqa: PLC0415

    objects = []
    for file in files:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text()
            objects += [obj for obj in yaml.safe_load_all(text) if isinstance(obj, dict)]
        except (OSError, yaml.YAMLError) as error:
            shown = " ".join(str(error).split())
            print(f"inference-rollouts analysis lint: {file}: {shown}", file=sys.stderr)  # noqa: T201
            raise typer.Exit(BAD_INPUT) from error
    version = re.match(r"v?(\d+)\.(\d+)", argo_version)
    if argo_version and version is None:
        print(  # noqa: T201
            f"inference-rollouts analysis lint: --argo-version {argo_version!r}: expected e.g. "
            "1.10 or v1.10.2",
            file=sys.stderr,
        )
        raise typer.Exit(BAD_INPUT)
    argo = (int(version[1]), int(version[2])) if version else None
    found = mistakes(objects, argo=argo)
    for item in found:
        print(f"{'mistake' if item.fatal else 'remark'}: {item.where}: {item.text}")  # noqa: T201
    if any(item.fatal for item in found):
        raise typer.Exit(MISTAKES)
    kinds = ", ".join(sorted({str(obj.get("kind")) for obj in objects})) or "no object"
    print(f"no mistake in {len(objects)} objects ({kinds})")  # noqa: T201
