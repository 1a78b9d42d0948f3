"""The edge to Prometheus against servers that answer in every wrong way."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from inference_analysis.command import app
from inference_analysis.errors import PrometheusError
from inference_analysis.prometheus import Access, Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EMPTY: dict[str, Any] = {"status": "success", "data": {"resultType": "matrix", "result": []}}


class Answers(ThreadingHTTPServer):
    """Gives one answer to everything and keeps what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.body = json.dumps(EMPTY).encode()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.silent = threading.Event()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        if self.server.silent.is_set():
            self.server.released.wait()
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.send_header("Retry-After", "3600")
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            found.released.set()
            found.shutdown()
            thread.join()


def ask(url: str, **access: Any) -> list[dict[str, Any]]:
    with Prometheus(Access(url=url, **access)) as prometheus:
        return prometheus.samples("{a='b'}", since_s=10.0, until_s=70.5)


def test_raw_samples_are_asked_for_in_one_query_with_a_time_limit(server: Answers) -> None:
    assert ask(server.url) == []
    ((path, _),) = server.asked
    assert urlsplit(path).path == "/api/v1/query"
    assert parse_qs(urlsplit(path).query) == {
        "query": ["{a='b'}[60500ms]"],
        "time": ["70.500"],
        "timeout": ["30000ms"],
        "partial_response": ["false"],
        "dedup": ["true"],
    }


@pytest.mark.parametrize(
    ("status", "body", "message", "times"),
    [
        pytest.param(
            200,
            EMPTY | {"warnings": ["no store matched"]},
            "may be partial: no store matched",
            1,
            id="warnings",
        ),
        pytest.param(200, {"status": "error"}, "has no data.result", 1, id="no-data"),
        pytest.param(200, [1], "has no data.result", 1, id="other-json"),
        pytest.param(200, "<html>", "is no JSON.*login page", 1, id="html"),
        pytest.param(400, {"error": "parse error"}, "400.*parse error", 1, id="400"),
        pytest.param(401, "", "401.*--bearer-token-file", 1, id="401"),
        pytest.param(404, "", "404.*what precedes /api/v1", 1, id="404"),
        pytest.param(422, {"error": "too many samples"}, "fewer --minutes", 1, id="422"),
        pytest.param(503, {"error": "timed out"}, "503.*overloaded", 3, id="503-is-tried-again"),
    ],
)
def test_answers_that_are_not_whole_are_errors(
    server: Answers, status: int, body: object, message: str, times: int
) -> None:
    server.status = status
    server.body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    with pytest.raises(PrometheusError, match=message):
        ask(server.url)
    assert len(server.asked) == times


def test_server_that_never_answers_is_given_up(server: Answers) -> None:
    server.silent.set()
    with pytest.raises(PrometheusError, match="no answer in 0"):
        ask(server.url, timeout_s=0.05)


def test_remarks_that_do_not_make_an_answer_partial_are_kept(server: Answers) -> None:
    server.body = json.dumps(EMPTY | {"infos": ["a remark"]}).encode()
    with Prometheus(Access(url=server.url)) as prometheus:
        assert prometheus.samples("{a='b'}", since_s=0.0, until_s=1.0) == []
    assert prometheus.notes == ["Prometheus: a remark"]


def test_label_value_that_reads_warnings_is_no_warning(server: Answers) -> None:
    result = [{"metric": {"a": "warnings"}, "values": []}]
    server.body = json.dumps({"data": {"resultType": "matrix", "result": result}}).encode()
    assert ask(server.url) == result


def test_credentials_and_tenant_are_sent(server: Answers) -> None:
    ask(server.url, bearer_token="abc", tenant="team")
    ask(server.url, basic=("me", "pass"))
    token, basic = (headers for _, headers in server.asked)
    assert (token["Authorization"], token["X-Scope-OrgID"]) == ("Bearer abc", "team")
    assert basic["Authorization"] == f"Basic {base64.b64encode(b'me:pass').decode()}"


HASHES = ["--canary-hash", "6d5f", "--stable-hash", "9c1b"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        pytest.param(HASHES, 2, "canary has no series at all", id="no-data"),
        pytest.param(
            ["--canary-hash", "a", "--stable-hash", "a"], 2, "equals --stable-hash", id="hashes"
        ),
        pytest.param([*HASHES, "--end", "99999999999"], 2, "Is a clock wrong?", id="future"),
        pytest.param([*HASHES, "--end", "2026-01-01T00:00"], 2, "no time zone", id="zone"),
        pytest.param([*HASHES, "--minutes", "0.5"], 2, "less than one --window", id="window"),
        pytest.param([*HASHES, "--bearer-token-file", "absent"], 2, "absent", id="token"),
        pytest.param([*HASHES, "--bearer-token-file", "/dev/null"], 2, "empty", id="no-token"),
        pytest.param([*HASHES, "--client-key", "k"], 2, "give both, or none", id="certificate"),
        pytest.param(
            [*HASHES, "--prometheus", "http://a:b@127.0.0.1"], 2, "credentials", id="credentials"
        ),
        pytest.param(
            [*HASHES, "--prometheus", "http://127.0.0.1:1"], 4, "not reached", id="unreachable"
        ),
    ],
)
def test_exit_code_tells_who_must_act_and_nothing_is_written(
    server: Answers, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    output = tmp_path / "cells.json"
    fixed = ["--prometheus", server.url, "--namespace", "llm", "--rollout", "chat"]
    result = CliRunner().invoke(app, ["capture", *fixed, "--output", str(output), *options])
    assert result.exit_code == code
    assert message in result.stderr
    assert not output.exists()
