"""The reports of a verdict: HTML and Markdown say what the JSON says, and need nothing else."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

from inference_analysis import checking, html_report, markdown, reports, translating, wording
from inference_analysis.command import app
from inference_analysis.evaluation import evaluate
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from pathlib import Path

FLEET = Fleet(requests=200.0, drift_sd=0.0, prompts=60)
HOSTILE = '</pre><script>alert(1)</script> & "quoted" | `code` @somebody'
KINDS = [
    pytest.param(FLEET, id="pass"),
    pytest.param(replace(FLEET, slowdown={"ttft": 1.4}, quality_loss=0.3), id="fail"),
    pytest.param(Fleet(canary=1, stable=3, pod_sd=0.1), id="weak"),
    pytest.param(replace(FLEET, requests=0.2), id="hardly-any-data"),
    pytest.param(replace(FLEET, metrics={}), id="no-latency"),
]


def content(fleet: Fleet) -> dict[str, Any]:
    """A file of a fourth look, whose ledger holds three before."""
    found: dict[str, Any] = cells(fleet.observe(np.random.default_rng(4)), look={"fraction": 0.8})
    looks = [
        {"id": f"look-{k}", "kind": "planned", "fraction": k / 5, "until": 360.0 * k}
        for k in (1, 2, 3)
    ]
    default = checking.parse(json.dumps(found)).policy
    segment = {"epoch": 1, "since": 0, "budget": 0.8, "looks": looks}
    segment["policy"] = translating.fingerprint(default)
    found["ledger"] = {
        "schema": "inference-rollouts.io/analysis-ledger/v1",
        "segments": [segment],
    }
    for prompt in found["prompts"]:
        prompt |= {"text": HOSTILE, "canaryAnswer": HOSTILE, "stableAnswer": "yes"}
    return found


def verdict(fleet: Fleet) -> dict[str, Any]:
    document = checking.parse(json.dumps(content(fleet)))
    evaluation = evaluate(
        translating.observations(document),
        translating.policy(document.policy),
        translating.look(document.look),
        translating.ledger(document.ledger),
        fingerprint=translating.fingerprint(document.policy),
    )
    found: dict[str, Any] = reports.document(evaluation, document.rollout, with_figures=True)
    return found


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [
            value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "data"}
        ]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(page: str) -> _Page:
    found = _Page()
    found.feed(page)
    return found


@pytest.mark.parametrize("fleet", KINDS)
def test_the_page_is_well_formed_and_needs_nothing_else(fleet: Fleet) -> None:
    page = html_report.page(verdict(fleet))
    ET.fromstring(page.removeprefix("<!DOCTYPE html>"))  # noqa: S314 - our own page
    found = parsed(page)
    assert not found.tags & {"script", "link", "iframe", "img", "object", "embed"}
    assert all(reference.startswith("#") for reference in found.references)
    namespaces = {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"}
    namespaces.add("http://www.w3.org/1999/xlink")
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= namespaces
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


@pytest.mark.parametrize("fleet", KINDS)
def test_equal_documents_give_equal_bytes(fleet: Fleet) -> None:
    first, second = verdict(fleet), verdict(fleet)
    assert html_report.page(first) == html_report.page(second)
    assert markdown.text(first) == markdown.text(second)


@pytest.mark.parametrize("fleet", KINDS)
def test_every_part_of_the_verdict_is_on_the_page(fleet: Fleet) -> None:
    document = verdict(fleet)
    text = " ".join(" ".join(parsed(html_report.page(document)).words).split())
    parts = [
        document["verdict"].upper(),
        document["next"],
        document["look"]["id"],
        *document["reasons"],
        *(gate["name"] for gate in document["gates"]),
        *(check["text"] for check in document["grossHarm"]),
        *(finding["text"] for finding in document["findings"]),
        *(prompt["id"] for prompt in document["worstPrompts"]),
    ]
    parts += [
        wording.effect(gate[key], gate["scale"])
        for gate in document["gates"]
        if "scale" in gate
        for key in ("estimate", "lower", "upper", "marginOnScale", "minimumDetectableEffect")
    ]
    assert [part for part in parts if " ".join(part.split()) not in text] == []


def test_every_plot_is_there_and_has_both_arms() -> None:
    page = html_report.page(verdict(FLEET))
    svg = "{http://www.w3.org/2000/svg}svg"
    labels = [
        element.get("aria-label", "")
        for element in ET.fromstring(page.removeprefix("<!DOCTYPE html>")).iter(svg)  # noqa: S314
    ]
    for plot in ("in units of its margin", "of each pod", "bucket edge", "over time", "bounds of"):
        assert any(plot in label for label in labels), plot
    # Both colours are CSS variables, which light and dark set anew.
    assert page.count("var(--canary)") > 5
    assert page.count("var(--stable)") > 5
    assert page.count("--canary:") == 2
    assert "prefers-color-scheme: dark" in page


def test_ids_are_not_used_twice_on_a_page() -> None:
    ids = re.findall(r'\bid="([^"]+)"', html_report.page(verdict(FLEET)))
    assert len(ids) == len(set(ids))


def test_answers_cannot_bring_marks_onto_the_page_or_into_a_comment() -> None:
    document = verdict(replace(FLEET, quality_loss=0.4))
    assert document["worstPrompts"]
    page, comment = html_report.page(document), markdown.text(document)
    assert "<script" not in page
    assert "<script" not in comment
    assert "@somebody" not in comment
    row = next(line for line in comment.splitlines() if "alert" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


def test_the_comment_holds_verdict_gates_and_next_and_fits() -> None:
    document = verdict(replace(FLEET, slowdown={"ttft": 1.4}))
    comment = markdown.text(document)
    assert comment.startswith("### ❌ FAIL, abort: llm/chat canary 6d5f\n")
    for gate in document["gates"]:
        assert f"| {gate['name']}" in comment
    assert len(comment) < 65_536


def test_past_looks_have_the_statistic_that_their_windows_give() -> None:
    """The second look saw the first twelve windows."""
    document = verdict(FLEET)
    boundary = document["figures"]["boundary"]
    points = next(g for g in boundary["gates"] if g["gate"] == "ttft/mean")["points"]
    assert [p["fraction"] for p in points] == [0.2, 0.4, 0.6, 0.8]
    early = content(FLEET)
    early["look"] = {"id": "look-2"}
    found = checking.parse(json.dumps(early))
    replayed = evaluate(
        translating.observations(found),
        translating.policy(found.policy),
        translating.look(found.look),
        translating.ledger(found.ledger),
        fingerprint=translating.fingerprint(found.policy),
    )
    p = next(r for r in replayed.results if r.gate.name == "ttft/mean").harm_p
    assert 0.5 * math.erfc(points[1]["z"] / math.sqrt(2.0)) == pytest.approx(p, rel=1e-6)


def test_the_budget_spent_is_that_of_lan_and_demets() -> None:
    """.04 in all, 80 % of it planned; at 80 % of the plan alpha(t) is known."""
    spent = verdict(FLEET)["figures"]["boundary"]["spent"]
    # 2 - 2 Phi(z_{.016} / sqrt(.8)), z_{.016} = 2.14441, by tables of the normal distribution.
    assert spent[-1] == {"fraction": 0.8, "alpha": pytest.approx(0.01650, abs=2e-5)}


def test_the_command_writes_both_reports(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(content(FLEET)))
    page, comment = tmp_path / "out.html", tmp_path / "out.md"
    result = CliRunner().invoke(
        app, ["evaluate", str(file), "--report", str(page), "--markdown", str(comment)]
    )
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 5
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert comment.read_text().startswith("### ")


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(content(FLEET)))
    result = CliRunner().invoke(
        app, ["evaluate", str(file), "--report", str(tmp_path / "no" / "x")]
    )
    assert result.exit_code == 2
    assert "No such file" in result.stderr
