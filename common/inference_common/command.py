"""The command ``inference-rollouts``: each installed component brings its own sub-command."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Final

import typer

from inference_common.errors import KubeUnconfigured

GROUP: Final = "inference_rollouts.commands"


def application(argv: list[str]) -> typer.Typer:
    """The typer application for these arguments.

    Only the component that is asked for is imported, so that a pod starts fast; all of them are
    when help is wanted.
    """
    app = typer.Typer(
        name="inference-rollouts",
        help="Progressive delivery of LLM inference on Kubernetes.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root() -> None:
        """Progressive delivery of LLM inference on Kubernetes."""

    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    wanted = found.keys() & argv[:1] or found.keys()
    for name in sorted(wanted):
        app.add_typer(found[name].load(), name=name)
    return app


def main() -> None:
    """Run the command with the process's arguments."""
    try:
        application(sys.argv[1:])()
    except KubeUnconfigured as error:
        sys.exit(f"inference-rollouts: {error}")
