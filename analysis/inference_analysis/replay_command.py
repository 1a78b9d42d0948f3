"""`inference-rollouts analysis replay`: a past rollout, look by look."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it from the signature
from typing import Annotated

import typer

from inference_analysis.capture_options import CaptureOptions, with_capture_options
from inference_analysis.evaluate_command import BAD_INPUT, EXIT_CODES

NO_ANSWER = 4


@with_capture_options
def replay(
    options: CaptureOptions,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Cells file of the whole rollout, or - for standard input; without it Prometheus "
            "is read, by the options of `capture`."
        ),
    ] = None,
    looks: Annotated[int, typer.Option(min=1, max=100, help="Even looks at it.")] = 5,
    after_fail: Annotated[
        bool, typer.Option("--after-fail", help="Go on looking after a FAIL.")
    ] = False,
    priors: Annotated[Path | None, typer.Option(help="Priors file of `calibrate`.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report of the last look.")] = None,
    json: Annotated[bool, typer.Option("--json", help="All verdicts as JSON.")] = False,
) -> None:
    """Say what would have been decided at each look at a past rollout.

    From a cells file, or from Prometheus by the options of `capture`, --end and --minutes around
    the past rollout. A file's own look and ledger are left aside: a replay begins with an empty
    ledger.

    Exit code: that of the last look (0: go on, 1: abort, 3: pause); 2: an option or the data cannot
    be used; 4: Prometheus was not reached, refused or answered in part only.
    """
    from inference_analysis import checking, reports, translating  # noqa: PLC0415 - help is fast
    from inference_analysis.errors import InputError, PrometheusError  # noqa: PLC0415
    from inference_analysis.replaying import replayed  # noqa: PLC0415

    remarks: tuple[str, ...] = ()
    source = "Prometheus" if file is None else str(file)
    try:
        content, notes = _content(file, options)
        document = checking.parse(content)
        policy = document.policy
        if priors is not None:
            from inference_analysis.priors import applied, read  # noqa: PLC0415

            policy, remarks = applied(policy, read(priors), document.windows)
        remarks = (*notes, *remarks)
        evaluations = replayed(
            translating.observations(document),
            translating.policy(policy),
            looks=looks,
            fingerprint=translating.fingerprint(policy),
            after_fail=after_fail,
        )
        if report is not None:
            from inference_analysis.html_report import page  # noqa: PLC0415 - a second

            verdict = reports.document(evaluations[-1], document.rollout, with_figures=True)
            report.write_text(page(verdict), encoding="utf-8")
    except PrometheusError as error:
        _say(str(error))
        raise typer.Exit(NO_ANSWER) from error
    except (InputError, OSError) as error:
        for line in str(error).splitlines():
            _say(f"{source}: {line}")
        raise typer.Exit(BAD_INPUT) from error
    for remark in remarks:
        _say(remark)
    documents = [reports.document(each, document.rollout) for each in evaluations]
    if json:
        schema = "inference-rollouts.io/analysis-replay/v1"
        sys.stdout.write(reports.rendered({"schema": schema, "looks": documents}))
    else:
        _show(documents, document.windows.start[0])
    raise typer.Exit(EXIT_CODES[evaluations[-1].decision.action])


def _content(file: Path | None, options: CaptureOptions) -> tuple[bytes | str, tuple[str, ...]]:
    """The cells and remarks on them; raises InputError for both sources at once."""
    from inference_analysis.captures import captured  # noqa: PLC0415 - help is fast
    from inference_analysis.errors import InputError  # noqa: PLC0415

    if file is None:
        return captured(options)
    if options != CaptureOptions():
        raise InputError("the options that read Prometheus do not go with a file. Give one of both")
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes(), ()


def _show(documents: list[dict[str, object]], begin: float) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("look", "minute", "verdict", "action", "evidence", "why", box=None)
    for each in documents:
        look = each["look"]
        reasons = each["reasons"]
        assert isinstance(look, dict)  # noqa: S101 - reports.document made it
        assert isinstance(reasons, list)  # noqa: S101
        table.add_row(
            f"{look['fraction']:.0%}",
            f"{(look['until'] - begin) / 60.0:.0f}",
            str(each["verdict"]),
            str(each["action"]),
            str(each["evidence"]),
            Text("; ".join(map(str, reasons))),
        )
    console = Console(highlight=False)
    console.print(table)
    lines = documents[-1]["lines"]
    assert isinstance(lines, list)  # noqa: S101
    sys.stdout.write("\n" + "\n".join(lines) + "\n")


def _say(text: str) -> None:
    print(f"inference-rollouts analysis replay: {text}", file=sys.stderr)  # noqa: T201
