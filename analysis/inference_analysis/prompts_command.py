"""`inference-rollouts analysis prompts`: look at a prompt set before it is used."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

BAD_INPUT = 2

prompts_app = typer.Typer(
    name="prompts", help="Check a prompt set, or print the example.", no_args_is_help=True
)


@prompts_app.callback()
def prompts() -> None:
    """Check a prompt set, or print the example."""


@prompts_app.command()
def check(
    file: Annotated[str, typer.Argument(help="Prompt set (JSONL), or `example`.")],
) -> None:
    """Say what a prompt set holds, and everything that is wrong with it.

    Exit code 0: it can be used, remarks are on standard error; 2: it cannot, one line for each
    fault.
    """
    from inference_analysis.errors import InputError  # noqa: PLC0415 - help is fast
    from inference_analysis.prompts import prompt_sets  # noqa: PLC0415

    try:
        found = prompt_sets.load(file)
    except (InputError, OSError) as error:
        _say(file, str(error))
        raise typer.Exit(BAD_INPUT) from error
    for remark in found.remarks:
        _say(file, remark)
    sys.stdout.write("\n".join(prompt_sets.described(found)) + "\n")


@prompts_app.command()
def example() -> None:
    """Print the prompt set that is shipped, as a start for one's own."""
    from inference_analysis.prompts import prompt_sets  # noqa: PLC0415 - help is fast

    sys.stdout.write(prompt_sets.example().decode())


def _say(file: str, text: str) -> None:
    for line in text.splitlines():
        print(f"inference-rollouts analysis prompts check: {file}: {line}", file=sys.stderr)  # noqa: T201
