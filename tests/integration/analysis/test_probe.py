"""The prober and its command against two real processes of the simulated server."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from support.analysed import analysis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Serve = Callable[..., Awaitable[str]]

TESTS = Path(__file__).parents[2]
QUICK = ("--rate", "200", "--model", "mymodel")


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers; gives the address once it answers."""
    processes = []

    async def started(version: str, *flags: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ("-m", "support.simulated_vllm", "--port", str(port), "--version", version)
        own = ("--served-model-name", "mymodel", "--speed", "10", *flags)
        process = await asyncio.create_subprocess_exec(sys.executable, *command, *own, cwd=TESTS)
        processes.append(process)
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(180), aiohttp.ClientSession() as session:
            while not await healthy(session, url):  # noqa: ASYNC110 - it can only be asked
                await asyncio.sleep(0.05)
        return url

    yield started
    for process in processes:
        process.kill()
        await process.wait()


async def healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


@pytest.mark.parametrize(
    ("fault", "code", "outcome"),
    [
        pytest.param((), 0, "proved", id="an-equal-version-passes"),
        pytest.param(
            ("--fault", "wrong_share=0.33"), 1, "fail", id="one-that-answers-worse-is-failed"
        ),
    ],
)
async def test_the_example_prompts_tell_a_worse_version_from_an_equal_one(
    serve: Serve, tmp_path: Path, fault: tuple[str, ...], code: int, outcome: str
) -> None:
    stable, canary = await asyncio.gather(serve("one"), serve("two", *fault))
    file = tmp_path / "scores.jsonl"
    arms = ("--canary", canary, "--stable", stable, "--output", str(file))
    assert (await analysis("probe", "example", *arms, *QUICK))[0] == 0
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    versions = {row["arm"]: row["version"] for row in rows[1:]}
    assert versions == {"canary": "two", "stable": "one"}
    stables = [row for row in rows[1:] if row["arm"] == "stable"]
    assert {row["scores"]["quality"] for row in stables} == {1.0}
    assert {row["attempts"] for row in rows[1:]} == {1}
    tools = [row for row in stables if row["topic"] == "tools"]
    assert {row["finishReason"] for row in tools} == {"tool_calls"}
    verdict_code, verdict, _ = await analysis("evaluate", "--scores", str(file), "--json")
    assert verdict_code == code
    (gate,) = json.loads(verdict)["gates"]
    assert (gate["name"], gate["outcome"]) == ("quality/score", outcome)


async def test_a_server_that_is_there_can_judge_and_one_that_talks_nonsense_is_refused(
    serve: Serve, tmp_path: Path
) -> None:
    stable, canary = await asyncio.gather(serve("one"), serve("two", "--fault", "worse"))
    file = tmp_path / "scores.jsonl"
    arms = ("--canary", canary, "--stable", stable, "--output", str(file))
    # The simulated server knows no verdicts: it talks of sights instead.
    code, _, said = await analysis(
        "probe", "example", *arms, *QUICK, "--judge", stable, "--judge-model", "mymodel"
    )
    assert code == 4
    assert "judge: 'mymodel' gave no verdict on 72 of 72 pairs (limit 10%" in said
    assert not file.exists()


async def test_an_unreachable_version_is_one_line_and_leaves_no_file(
    serve: Serve, tmp_path: Path
) -> None:
    stable = await serve("one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        file = tmp_path / "scores.jsonl"
        arms = ("--canary", nobody, "--stable", stable, "--output", str(file))
        code, _, said = await analysis("probe", "example", *arms, *QUICK, "--retries", "0")
    assert code == 4
    (line,) = said.splitlines()
    assert line.startswith(f"inference-rollouts analysis probe: canary: {nobody}/v1/")
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(("none.jsonl", "--model", "m"), "No such file", id="no-prompt-set"),
        pytest.param(("example",), "canary.model: missing", id="no-model"),
        pytest.param(
            ("example", "--model", "m", "--canary-header", "x"), "NAME: VALUE", id="header"
        ),
        pytest.param(
            ("example", "--model", "m", "--canary", "ftp://x"), "expected http://HOST", id="address"
        ),
        pytest.param(
            ("example", "--model", "m"), "canary and stable are both http", id="one-endpoint"
        ),
    ],
)
async def test_options_that_cannot_be_used_are_named(
    arguments: tuple[str, ...], problem: str
) -> None:
    arms = ("--canary", "http://127.0.0.1:1", "--stable", "http://127.0.0.1:1/")
    code, out, said = await analysis("probe", *arms, *arguments)
    assert (code, out) == (2, "")
    assert problem in said
