"""The pick log: what a line holds, that it never waits, and how people read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from inference_picker.command import app
from inference_picker.decisions import Considered, Decision
from inference_picker.messages import Ended, Finish, Pick, Reason, Reject, TokenTimes, Usage
from inference_picker.pick_log import PickLog, finished_line, refused_line

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = {"x-request-id": "abc", "authorization": "Bearer secret"}
CONSIDERED = tuple(
    Considered(
        address=f"10.0.0.{number}:80",
        version="old",
        score=1.0 / number,
        parts={"load": 1.0 / number},
        in_flight=number,
        seats=4.0 * (number - 1),
        pending_tokens=100.0 * number,
        cached_tokens=0,
        kv_share=0.25,
        health=1.0,
    )
    for number in (1, 2)
)
DECISION = Decision(
    profile="default",
    removed={"subset": ("10.0.0.3:80",), "ejected": ()},
    considered=CONSIDERED,
    chosen=("10.0.0.1:80",),
)
PICK = Pick(endpoints=("10.0.0.1:80",), model="chat", target="v1", version="old", decision=DECISION)
FINISH = Finish(
    pick=PICK,
    ended=Ended.COMPLETE,
    duration_s=0.5,
    status=200,
    first_token_s=0.0333333333,
    tokens=TokenTimes(usage=Usage(prompt=7, output=3, cached=2)),
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_tells_choice_and_outcome_and_no_header_but_the_request_id() -> None:
    line = json.loads(json.dumps(finished_line(HEADERS, FINISH, at=1_700_000_000.1234)))

    assert line["at"] == 1_700_000_000.123
    assert line["request"] == "abc"
    assert (line["model"], line["target"], line["version"]) == ("chat", "v1", "old")
    assert (line["endpoint"], line["status"], line["ended"]) == ("10.0.0.1:80", 200, "complete")
    assert (line["error"], line["ttft_s"], line["duration_s"]) == (None, 0.033333, 0.5)
    assert line["tokens"] == {"prompt": 7, "output": 3, "cached": 2}
    assert line["decision"]["considered"][1]["pending_tokens"] == 200
    assert "secret" not in json.dumps(line)


def test_lines_are_in_the_file_when_the_log_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "picks"
    with PickLog(path, max_bytes=1_000_000) as log:
        for number in range(2_000):
            log.put({"number": number})

    assert [line["number"] for line in lines(path)] == list(range(2_000))
    assert log.dropped.total() == 0


def test_a_full_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "picks"
    with PickLog(path, max_bytes=50) as log:
        log.put({"text": "x" * 60})

    assert not path.exists()
    assert lines(tmp_path / "picks.1") == [{"text": "x" * 60}]


def test_what_the_disk_refuses_is_counted_and_nothing_raises(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "picks"
    path.parent.mkdir()
    with PickLog(path, max_bytes=1000) as log:
        path.unlink()
        path.parent.rmdir()
        log.put({})

    assert log.dropped.total() == 1


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    log = PickLog(tmp_path / "picks", max_bytes=1000)
    for _ in range(10_005):
        log.put({})

    assert log.dropped.total() == 5


def explained(tmp_path: Path, *args: str) -> tuple[int, str]:
    path = tmp_path / "picks"
    rejected = Reject(status=503, reason=Reason.NO_ENDPOINTS, message="No ready endpoint.")
    entries = [
        finished_line(HEADERS, FINISH, at=1.0, pool="llm/chat"),
        refused_line({"x-request-id": "def"}, rejected, at=2.0),
    ]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries) + '{"at": 1')
    result = CliRunner().invoke(app, ["explain", str(path), *args])
    return result.exit_code, result.output


def test_explain_shows_candidates_choice_and_outcome(tmp_path: Path) -> None:
    code, text = explained(tmp_path, "--request", "abc")

    assert code == 0
    first, *rest = text.splitlines()
    assert first == "request abc: 10.0.0.1:80, version old"
    assert "  pool llm/chat, model chat as v1, sample background" in rest
    assert "  status 200, complete, first token after 33 ms, end after 500 ms" in rest
    assert "  subset took out 10.0.0.3:80" in rest
    assert any(line.strip().startswith("→  10.0.0.1:80") for line in rest)
    # In flight and seats, which are unknown for the first and four for the second.
    assert [line.split("0.0.")[1].split()[3:5] for line in rest if "  10.0.0." in line] == [
        ["1", "?"],
        ["2", "4"],
    ]


def test_explain_shows_refusals(tmp_path: Path) -> None:
    code, text = explained(tmp_path, "--errors")

    assert code == 0
    assert text == ("request def: refused with 503, rejected-no-endpoints\n  No ready endpoint.\n")


@pytest.mark.parametrize(
    "args", [("--request", "nobody"), ("--endpoint", "10.9.9.9:80"), ("--pool", "llm/other")]
)
def test_explain_says_when_nothing_fits(tmp_path: Path, args: tuple[str, str]) -> None:
    code, text = explained(tmp_path, *args)

    assert code == 1
    assert "no request that fits" in text


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"[]\n1\n", b'{"endpoint": "10.0.0.1:80"}\n'], ids=str
)
def test_explain_reads_nothing_into_another_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picks"
    path.write_bytes(content)

    result = CliRunner().invoke(app, ["explain", str(path)])

    assert result.exit_code == 1
    assert "no request that fits" in result.output


def test_explain_says_when_there_is_no_log(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["explain", str(tmp_path / "none")])

    assert result.exit_code == 2
    assert "No such file" in result.output
