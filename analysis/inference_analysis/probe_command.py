"""`inference-rollouts analysis probe`: the same prompts to both versions, scored."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from inference_analysis.prompts.probe_runs import ProbeRun
    from inference_analysis.prompts.settings import QualityDocument

BAD_INPUT = 2
NO_ANSWER = 4


def probe(
    prompts: Annotated[str, typer.Argument(help="Prompt set (JSONL), or `example`.")],
    canary: Annotated[str, typer.Option(help="Address of the canary, up to what precedes /v1.")],
    stable: Annotated[str, typer.Option(help="Address of stable; may be the same gateway.")],
    model: Annotated[str, typer.Option(help="Model name of both versions.")] = "",
    canary_model: Annotated[str, typer.Option(help="The canary's, e.g. a LoRA adapter.")] = "",
    stable_model: Annotated[str, typer.Option(help="Stable's.")] = "",
    canary_header: Annotated[
        list[str] | None, typer.Option(help="NAME: VALUE that leads to the canary.")
    ] = None,
    stable_header: Annotated[
        list[str] | None, typer.Option(help="NAME: VALUE that leads to stable.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Scores file, or - for standard output.")] = Path(
        "-"
    ),
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Answers to each prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the order and of the sampling.")] = 0,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Most requests in flight, both versions together.")
    ] = 4,
    rate: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Most requests a second, both together.")
    ] = 2.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one whole answer.")] = 60.0,
    retries: Annotated[
        int, typer.Option(min=0, max=10, help="After connection errors; never after an answer.")
    ] = 2,
    token_file: Annotated[Path | None, typer.Option(help="File with a bearer token.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="CA certificates (PEM).")] = None,
    hash_answers: Annotated[
        bool, typer.Option("--hash-answers", help="Write digests instead of answers.")
    ] = False,
    canary_hash: Annotated[str, typer.Option(help="Its pod-template-hash, to be compared.")] = "",
    stable_hash: Annotated[str, typer.Option(help="Stable's.")] = "",
    judge: Annotated[str, typer.Option(help="Address of a model that compares answers.")] = "",
    judge_model: Annotated[str, typer.Option(help="Its name.")] = "",
    judge_token_file: Annotated[Path | None, typer.Option(help="File with its token.")] = None,
    judge_limit: Annotated[
        float, typer.Option(min=0.0, max=0.49, help="Share of pairs without a verdict.")
    ] = 0.1,
) -> None:
    """Send a prompt set to both versions, score the answers, and write them for `evaluate`.

    Exit code 0: written; 2: an option or the prompt set cannot be used; 4: an endpoint was not
    reached, refused, or does not do its part. Nothing is written in the last two cases.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - help is fast

    from inference_analysis.errors import EndpointError, InputError  # noqa: PLC0415
    from inference_analysis.prompts.settings import QualityDocument  # noqa: PLC0415

    try:
        values: dict[str, Any] = {
            "promptSet": prompts,
            "model": model,
            "canary": _endpoint(canary, canary_model, canary_header or [], "--canary-header"),
            "stable": _endpoint(stable, stable_model, stable_header or [], "--stable-header"),
            "tokenFile": token_file,
            "caFile": ca_file,
            "repeats": repeats,
            "seed": seed,
            "concurrency": concurrency,
            "rate": rate,
            "timeout": timeout,
            "retries": retries,
            "keepAnswers": not hash_answers,
        }
        if judge:
            values["judge"] = {
                "url": judge,
                "model": judge_model,
                "tokenFile": judge_token_file,
                "nonsenseLimit": judge_limit,
            }
        try:
            settings = QualityDocument.model_validate(values)
        except ValidationError as error:
            problems = (_problem(item["loc"], item["msg"]) for item in error.errors())
            raise InputError(*problems) from error
        found = asyncio.run(_run(settings, canary_hash, stable_hash))
        if str(output) == "-":
            sys.stdout.write(found.text)
        else:
            output.write_text(found.text)
    except EndpointError as error:
        _say(str(error))
        raise typer.Exit(NO_ANSWER) from error
    except (InputError, OSError) as error:
        _say(str(error))
        raise typer.Exit(BAD_INPUT) from error
    _say(found.summary)


async def _run(settings: QualityDocument, canary_hash: str, stable_hash: str) -> ProbeRun:
    from inference_analysis.observations import Arm  # noqa: PLC0415 - help is fast
    from inference_analysis.prompts import prompt_sets  # noqa: PLC0415
    from inference_analysis.prompts.probe_runs import probed  # noqa: PLC0415

    prompt_set = prompt_sets.load(settings.prompt_set)
    for remark in prompt_set.remarks:
        _say(remark)
    return await probed(
        prompt_set,
        settings.endpoints({}),
        settings.plan(),
        judging=settings.judging(),
        hashes={Arm.CANARY: canary_hash, Arm.STABLE: stable_hash},
        keep_answers=settings.keep_answers,
        ca_file=settings.ca_file,
    )


def _problem(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, location))}: {text}" if location else text


def _endpoint(url: str, model: str, headers: list[str], option: str) -> dict[str, Any]:
    from inference_analysis.errors import InputError  # noqa: PLC0415 - help is fast

    found = {}
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise InputError(f"{option} {text!r}: expected NAME: VALUE")
        found[name.strip()] = value.strip()
    return {"url": url, "model": model, "headers": found}


def _say(text: str) -> None:
    for line in text.splitlines():
        print(f"inference-rollouts analysis probe: {line}", file=sys.stderr)  # noqa: T201
