"""``inference-rollouts plugin lint``: read files, print findings, say it all by the exit code."""

from __future__ import annotations

import json as json_text
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

CLEAN: Final = 0
WARNED: Final = 1
FAILED: Final = 2


def lint(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE|DIR|-…", help="Manifests; - for standard input.")
    ],
    namespace: Annotated[
        str, typer.Option(help="Namespace of objects that name none.")
    ] = "default",
    longest_generation: Annotated[
        float, typer.Option(help="Seconds that the longest answer takes.")
    ] = 120.0,
    model_load: Annotated[
        float, typer.Option(help="Seconds from a pod's start until its model is loaded.")
    ] = 600.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check manifests without a cluster.

    Exit code 0: no error (with --strict: no warning either); 1: warnings, with --strict; 2: errors,
    or a file that can't be read.
    """
    from rich.console import Console  # noqa: PLC0415 - help is fast

    from inference_plugin.lint.documents import (  # noqa: PLC0415
        ManifestError,
        files_of,
        read_documents,
    )
    from inference_plugin.lint.findings import Severity  # noqa: PLC0415
    from inference_plugin.lint.linter import Assumptions  # noqa: PLC0415
    from inference_plugin.lint.linter import lint as linted  # noqa: PLC0415
    from inference_plugin.lint.report import show  # noqa: PLC0415

    documents = []
    try:
        for path in paths:
            if path == "-":
                documents += read_documents(sys.stdin.read(), "-", namespace)
                continue
            folder = Path(path).is_dir()
            for file in files_of(Path(path)):
                text = file.read_text()
                documents += read_documents(text, str(file), namespace, strays=folder)
    except (ManifestError, OSError, UnicodeDecodeError) as error:
        typer.echo(f"lint: {error}", err=True)
        raise typer.Exit(FAILED) from error
    found = linted(
        documents,
        Assumptions(longest_generation_s=longest_generation, model_load_s=model_load),
    )
    if json:
        document = {"objects": len(documents), "findings": [each.as_json() for each in found]}
        typer.echo(json_text.dumps(document, indent=2))
    else:
        show(found, len(documents), Console(highlight=False))
    severities = {each.severity for each in found}
    if Severity.ERROR in severities:
        raise typer.Exit(FAILED)
    raise typer.Exit(WARNED if strict and Severity.WARNING in severities else CLEAN)
