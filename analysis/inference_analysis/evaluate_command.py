"""`inference-rollouts analysis evaluate`: from a cells file to a verdict and its reports."""

from __future__ import annotations

import gc
import sys
from pathlib import Path  # noqa: TC003 - typer reads it from the signature
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inference_analysis.schema import CellsDocument

EXIT_CODES = {"proceed": 0, "abort": 1, "pause": 3}
BAD_INPUT = 2


def evaluate(
    file: Annotated[
        Path | None,
        typer.Argument(help="Cells file (docs/statistics.md), or - for standard input."),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="Scores of answers (docs/quality.md); enough without a cells file."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the whole verdict as JSON instead of five lines.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write the verdict as one HTML file (docs/reports.md).")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the verdict as Markdown, - for standard output.")
    ] = None,
    priors: Annotated[
        Path | None, typer.Option(help="Priors file of `calibrate`: what pods differ by.")
    ] = None,
) -> None:
    """Take one look at a file of cells, without any network.

    Exit code 0: go on (passed, or weak evidence in mode guard); 1: abort (failed); 2: the file
    cannot be used; 3: pause (inconclusive). The same file gives the same bytes.
    """
    from inference_analysis import reports, translating  # noqa: PLC0415 - help is fast
    from inference_analysis.errors import InputError  # noqa: PLC0415
    from inference_analysis.evaluation import evaluate as evaluated  # noqa: PLC0415

    gc.disable()  # one verdict, then the process ends: looking for cycles costs a third of the time
    remarks: tuple[str, ...] = ()
    try:
        document = _cells(file, scores or [])
        policy = document.policy
        if priors is not None:
            from inference_analysis.priors import applied, read  # noqa: PLC0415

            policy, remarks = applied(policy, read(priors), document.windows)
        evaluation = evaluated(
            translating.observations(document),
            translating.policy(policy),
            translating.look(document.look),
            translating.ledger(document.ledger),
            fingerprint=translating.fingerprint(policy),
        )
        if report is not None or markdown is not None:
            _write(
                reports.document(evaluation, document.rollout, with_figures=report is not None),
                report,
                markdown,
            )
    except (InputError, OSError) as error:
        _say(f"{file}: " if file is not None and not scores else "", str(error))
        raise typer.Exit(BAD_INPUT) from error
    finally:
        gc.enable()
    for remark in remarks:
        _say("", remark)
    if json:
        sys.stdout.write(reports.rendered(reports.document(evaluation, document.rollout)))
    elif str(markdown) != "-":
        sys.stdout.write("\n".join(reports.lines(evaluation, document.rollout)) + "\n")
    raise typer.Exit(EXIT_CODES[evaluation.decision.action])


def _cells(file: Path | None, scores: list[Path]) -> CellsDocument:
    from inference_analysis import checking  # noqa: PLC0415 - help is fast
    from inference_analysis.errors import InputError  # noqa: PLC0415

    if file is None and not scores:
        raise InputError("nothing to evaluate: give a cells file, --scores, or both")
    if file is not None:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        document = checking.parse(content)
        if not scores:
            return document
    from inference_analysis.prompts.scored_cells import cells_of, with_scores  # noqa: PLC0415

    return cells_of(scores) if file is None else with_scores(document, scores)


def _write(document: dict[str, object], report: Path | None, markdown: Path | None) -> None:
    if report is not None:
        from inference_analysis.html_report import page  # noqa: PLC0415 - matplotlib takes a second

        report.write_text(page(document), encoding="utf-8")
    if markdown is not None:
        from inference_analysis.markdown import text  # noqa: PLC0415

        found = text(document)
        if str(markdown) == "-":
            sys.stdout.write(found)
        else:
            markdown.write_text(found, encoding="utf-8")


def _say(where: str, text: str) -> None:
    for line in text.splitlines():
        print(f"inference-rollouts analysis evaluate: {where}{line}", file=sys.stderr)  # noqa: T201
