"""Input that cannot be judged: one clear error with the remedy, the documented code, never a pass.

The servers here answer on 127.0.0.1 as a Prometheus, a model or a judge would that is broken.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from inference_analysis.command import app
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


DATA = Fleet(windows=5, requests=50.0).observe(np.random.default_rng(1))
TTFT = "vllm:time_to_first_token_seconds"


def fails(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


def no_data(document: Any) -> None:
    for pod in document["pods"]:
        pod["warmUp"] = [True] * 5


def one_arm_empty(document: Any) -> None:
    document["pods"] = [pod for pod in document["pods"] if pod["arm"] == "stable"]


def one_arm_silent(document: Any) -> None:
    for pod in document["pods"]:
        if pod["arm"] == "canary":
            pod["warmUp"] = [True] * 5


def equal_hashes(document: Any) -> None:
    document["rollout"]["canaryHash"] = document["rollout"]["stableHash"]


def unknown_metric(document: Any) -> None:
    document["policy"] = {"gates": [{"metric": "tfft", "statistic": "mean"}]}


def unknown_statistic(document: Any) -> None:
    document["policy"] = {"gates": [{"metric": "ttft", "statistic": "p99"}]}


def negative(document: Any) -> None:
    document["pods"][0]["histograms"]["ttft"]["buckets"][0][3] = -1


def non_monotone_edges(document: Any) -> None:
    document["pods"][0]["histograms"]["ttft"]["le"][3] = 99.0


def cumulated(document: Any) -> None:
    histogram = document["pods"][0]["histograms"]["ttft"]
    histogram["buckets"] = [np.cumsum(row).tolist() for row in histogram["buckets"]]


def backward_clock(document: Any) -> None:
    document["windows"]["start"][2] = 30.0


def same_prompt_twice(document: Any) -> None:
    document["prompts"] = [{"id": "p", "canary": [1], "stable": [1]}] * 2


def other_version(document: Any) -> None:
    document["schema"] = "inference-rollouts.io/analysis-cells/v9"


def only_display(document: Any) -> None:
    document["policy"] = {"gates": [{"metric": "ttft", "statistic": "mean"}]}
    document["display"] = {"ttft": "no control adapter"}


def half_shared(document: Any) -> None:
    document["pods"][0]["server"] = "vllm-0"


def one_armed_users(document: Any) -> None:
    document["sticky"] = [{"name": "1", "arm": "canary", "requests": [1] * 5}]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        pytest.param(no_data, ("no usable request", "Wait for traffic"), id="no-data"),
        pytest.param(one_arm_empty, ("none of arm 'canary'", "Check the pods'"), id="empty-arm"),
        pytest.param(one_arm_silent, ("of the canary pods", "Wait for"), id="silent-arm"),
        pytest.param(equal_hashes, ("equals stableHash", "Check the Analysis"), id="equal-hashes"),
        pytest.param(unknown_metric, ("no data for tfft/mean", "Collect it"), id="unknown-metric"),
        pytest.param(unknown_statistic, ("gates[0].statistic", "'mean'"), id="unknown-statistic"),
        pytest.param(negative, ("buckets[0][3]", "greater than or equal to 0"), id="negative"),
        pytest.param(non_monotone_edges, ("edges must ascend",), id="non-monotone-edges"),
        pytest.param(cumulated, ("of each bucket alone, not cumulated",), id="cumulated-buckets"),
        pytest.param(backward_clock, ("is a clock wrong?",), id="clock-skew"),
        pytest.param(same_prompt_twice, ("'p' is also prompts[0].id",), id="duplicate-prompts"),
        pytest.param(other_version, ("schema: Input should be",), id="other-version"),
        pytest.param(only_display, ("display only", "Add another"), id="nothing-to-decide-on"),
        pytest.param(half_shared, ("Name the pod behind every entry",), id="half-shared-pods"),
        pytest.param(one_armed_users, ("no bucket of arm 'stable'", "leave"), id="users-one-arm"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "replay"])
def test_a_cells_file_that_cannot_be_judged_is_refused_with_the_remedy(
    tmp_path: Path, change: Callable[[Any], None], parts: tuple[str, ...], command: str
) -> None:
    document = json.loads(json.dumps(cells(DATA)))
    change(document)
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(document))
    fails(CliRunner().invoke(app, [command, str(file)]), 2, *parts)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("", "Invalid JSON", id="empty-file"),
        pytest.param('{"schema": NaN}', "NaN is no number", id="nan"),
        pytest.param('{"schema": Infinity}', "Infinity is no number", id="infinity"),
        pytest.param("[1, 2]", "(file)", id="no-object"),
    ],
)
def test_what_is_no_cells_file_is_refused(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "cells.json"
    file.write_text(text)
    for command in ("evaluate", "replay", "calibrate"):
        fails(CliRunner().invoke(app, [command, str(file)]), 2, part)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        body = self.server.reply(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def answering(reply: Callable[[str], bytes]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.reply = reply  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def answers_of(entries: list[dict[str, Any]]) -> Callable[[str], bytes]:
    """A Prometheus that has these series of the time to first token, and nothing else."""

    def reply(path: str) -> bytes:
        result = entries if "time_to_first_token_seconds" in path else []
        data = {"resultType": "matrix", "result": result}
        return json.dumps({"status": "success", "data": data}).encode()

    return reply


def histogram(**changes: Any) -> list[dict[str, Any]]:
    """Half an hour of one pod's scrapes up to now."""
    times = [time.time() - 1800.0 + 15.0 * i - changes.get("late", 0.0) for i in range(120)]
    found = []
    for name, le, rate in (
        ("_bucket", "0.1", changes.get("first", 1.0)),
        ("_bucket", "+Inf", 2.0),
        ("_count", "", 2.0),
        ("_sum", "", 0.5),
    ):
        labels = {"__name__": TTFT + name, "pod": "chat-a-x", "instance": "a:1"}
        if le:
            labels["le"] = le
        last = changes.get("last")
        values = [[t, str(rate * i)] for i, t in enumerate(times)]
        if last is not None:
            values[-1][1] = last
        found.append({"metric": labels, "values": values})
    return found


def native() -> list[dict[str, Any]]:
    labels = {"__name__": TTFT, "pod": "chat-a-x", "instance": "a:1"}
    return [{"metric": labels, "histograms": [[time.time(), {"count": "4", "sum": "2"}]]}]


CAPTURE = ("--namespace", "llm", "--rollout", "chat", "--canary-hash", "a", "--stable-hash", "b")


@pytest.mark.parametrize(
    ("entries", "options", "parts"),
    [
        pytest.param([], (), ("has no series at all", "podTargetLabels"), id="no-data"),
        pytest.param(native(), (), ("native histogram", "always_scrape_classic"), id="native"),
        pytest.param(histogram(last="NaN"), (), ("is nan", "exporter is broken"), id="nan"),
        pytest.param(histogram(last="-3"), (), ("is -3", "at least 0"), id="negative"),
        pytest.param(histogram(first=3.0), (), ("Buckets are cumulated",), id="non-monotone"),
        pytest.param(histogram(late=600.0), (), ("clocks agree", "--end"), id="clock-skew"),
        pytest.param([], ("--end", "99999999999"), ("Is a clock wrong?",), id="from-the-future"),
        pytest.param(
            [],
            ("--stable-hash", "a"),
            ("equals --stable-hash", "canary: Latest"),
            id="equal-hashes",
        ),
        pytest.param([], ("--canary-hash", ""), ("podTemplateHashValue: Latest",), id="empty-hash"),
        pytest.param(
            [],
            ("--arms", "adapters", "--canary-adapter", "v2"),
            ("--stable-adapter: empty", "target model name"),
            id="no-stable-adapter",
        ),
        pytest.param(
            [],
            ("--arms", "adapters", "--canary-adapter", "v2", "--stable-adapter", "v1"),
            ("second alias of v1", "picker is scraped"),
            id="adapter-without-series",
        ),
        pytest.param(
            [], ("--arms", "versions"), ("enforces the shares",), id="versions-without-series"
        ),
        pytest.param(
            [], ("--arms", "versions", "--alias", "a=b"), ("only with --arms pods",), id="alias"
        ),
    ],
)
def test_what_prometheus_has_is_refused_with_the_remedy(
    entries: list[dict[str, Any]], options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    with answering(answers_of(entries)) as url:
        result = CliRunner().invoke(app, ["capture", "--prometheus", url, *CAPTURE, *options])
    fails(result, 2, *parts)


def test_a_gate_on_an_unknown_metric_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"gates": [{"metric": "tfft", "statistic": "mean"}]}))
    options = [*CAPTURE, "--prometheus", "http://127.0.0.1:9", "--policy", str(file)]
    fails(CliRunner().invoke(app, ["capture", *options]), 2, "tfft", "--alias tfft=NAME")


def test_a_prompt_set_with_an_id_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    head = {"schema": "inference-rollouts.io/prompt-set/v1", "name": "mine", "version": "1"}
    prompt = {"id": "p1", "messages": [{"role": "user", "content": "hello"}]}
    file.write_text("\n".join(map(json.dumps, (head, prompt, prompt))))
    result = CliRunner().invoke(app, ["prompts", "check", str(file)])
    assert result.exit_code == 2
    assert "p1" in result.stderr


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    options = ["--canary", "http://127.0.0.1:9", "--stable", "http://127.0.0.1:10"]
    options += ["--retries", "0"]
    options += ["--model", "m", "--output", str(output)]
    result = CliRunner().invoke(app, ["probe", "example", *options])
    fails(result, 4, "was not reached", "Is it up, and is the address right?")
    assert not output.exists()


def test_a_judge_that_talks_nonsense_is_not_believed(tmp_path: Path) -> None:
    """Equal answers need no judge, so each answer is another one; the judge says the same."""
    number = iter(range(10_000))

    def reply(path: str) -> bytes:
        if path.endswith("/models"):
            return json.dumps({"data": [{"id": "m"}]}).encode()
        message = {"role": "assistant", "content": f"perhaps {next(number)}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return json.dumps({"choices": [choice]}).encode()

    output = tmp_path / "scores.jsonl"
    with answering(reply) as url:
        options = ["--canary", url, "--stable", url, "--rate", "1000"]
        options += ["--canary-model", "new", "--stable-model", "old"]
        options += ["--judge", url, "--judge-model", "m", "--output", str(output)]
        result = CliRunner().invoke(app, ["probe", "example", *options])
    assert result.exit_code == 4, result.output
    assert "judge" in result.stderr
    assert not output.exists()


def test_a_template_with_wrong_arguments_is_found(tmp_path: Path) -> None:
    """Argo gives an argument without a source an empty value, which selects nothing."""
    template = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": "x"},
        "spec": {
            "args": [{"name": "canary-hash"}, {"name": "canary-hash"}],
            "metrics": [
                {"name": "verdict", "count": 1, "failureLimit": 1, "provider": {"job": {}}}
            ],
        },
    }
    file = tmp_path / "template.yaml"
    file.write_text(json.dumps(template))
    result = CliRunner().invoke(app, ["lint", str(file)])
    assert result.exit_code == 1, result.output
    assert "failureLimit" in result.output
