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

from inference_analysis.aliases import FAMILIES
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
        self.bodies: dict[str, bytes] = {}
        """Answers to queries that contain the key."""
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
        found = [body for key, body in self.server.bodies.items() if key in self.path]
        body = found[0] if found else self.server.body
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "3600")
        self.end_headers()
        self.wfile.write(body)

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


def matrix(pod: str) -> bytes:
    """One observation in each scrape, half of them up to .1 s."""
    name = "vllm:time_to_first_token_seconds"
    result = []
    for suffix, le, slope in (
        ("_bucket", "0.1", 1),
        ("_bucket", "+Inf", 2),
        ("_count", "", 2),
        ("_sum", "", 1),
    ):
        labels = {"__name__": name + suffix, "pod": pod, "instance": pod, "le": le}
        values = [[885.0 + 15 * i, str(slope * i)] for i in range(20)]
        result.append({"metric": labels, "values": values})
    return json.dumps(EMPTY | {"data": {"resultType": "matrix", "result": result}}).encode()


def test_file_has_the_policy_the_look_and_the_ledger_that_were_given(
    server: Answers, tmp_path: Path
) -> None:
    server.bodies = {"6d5f": matrix("chat-6d5f-a"), "9c1b": matrix("chat-9c1b-b")}
    policy, ledger, output = (tmp_path / name for name in ("policy", "verdict", "cells"))
    rules = {"gates": [{"metric": "ttft", "statistic": "mean"}]}
    policy.write_text(json.dumps(rules))
    held = {"schema": "inference-rollouts.io/analysis-ledger/v1", "segments": []}
    ledger.write_text(json.dumps({"verdict": "inconclusive", "ledger": held}))
    options = [
        *("--prometheus", server.url, "--namespace", "llm", "--rollout", "chat", *HASHES),
        *("--minutes", "3", "--end", "1180", "--fraction", "0.4", "--look-id", "run-1"),
        *("--policy", str(policy), "--ledger", str(ledger), "--output", str(output)),
    ]
    result = CliRunner().invoke(app, ["capture", *options])
    assert result.exit_code == 0, result.stderr
    cells = json.loads(output.read_text())
    assert cells["policy"] == rules
    assert cells["ledger"] == held
    assert cells["look"] == {"id": "run-1", "fraction": 0.4}
    assert cells["windows"]["start"] == [1000.0, 1060.0, 1120.0]
    assert [(pod["arm"], pod["histograms"]["ttft"]["count"]) for pod in cells["pods"]] == [
        ("canary", [8, 8, 8]),
        ("stable", [8, 8, 8]),
    ]
    assert "tpot: left out, no series on canary and stable" in result.stderr
    # One query for each metric and arm.
    asked = [parse_qs(urlsplit(path).query)["query"][0] for path, _ in server.asked]
    assert len(asked) == len(set(asked)) == 2 * (len(FAMILIES) + 1)  # and up


@pytest.mark.parametrize("metric", ["tpot", "my_metric"])
def test_gate_on_a_metric_that_nobody_has_is_refused(
    server: Answers, tmp_path: Path, metric: str
) -> None:
    server.bodies = {"6d5f": matrix("chat-6d5f-a"), "9c1b": matrix("chat-9c1b-b")}
    policy = tmp_path / "policy"
    policy.write_text(json.dumps({"gates": [{"metric": metric, "statistic": "mean"}]}))
    fixed = ["--prometheus", server.url, "--namespace", "llm", "--rollout", "chat", *HASHES]
    options = ["--minutes", "3", "--end", "1180", "--policy", str(policy)]
    result = CliRunner().invoke(app, ["capture", *fixed, *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"--alias {metric}=NAME" in result.stderr


def test_a_long_stretch_is_asked_for_in_parts_and_joined(server: Answers) -> None:
    # The sample at the common edge (40.25) is in both parts: Prometheus 2 closes both ends.
    def part(*times: float) -> bytes:
        entry = {"metric": {"pod": "a"}, "values": [[t, "1"] for t in times]}
        data = {"resultType": "matrix", "result": [entry]}
        return json.dumps({"status": "success", "data": data}).encode()

    server.bodies = {"time=40.250": part(20, 40.25), "time=70.500": part(40.25, 60)}
    found = ask(server.url, chunk_s=40.0)
    assert found == [{"metric": {"pod": "a"}, "values": [[20, "1"], [40.25, "1"], [60, "1"]]}]
    assert len(server.asked) == 2
