from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from inference_analysis import checking
from inference_analysis.argo.books import Book, ProbeTimes, read_book, written_book
from inference_analysis.prompts.probe_times import without_probes
from inference_analysis.prompts.scored_cells import with_scores
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from pathlib import Path

    from inference_analysis.schema import CellsDocument


def document() -> CellsDocument:
    """Thirty windows of a minute."""
    return checking.parse(json.dumps(cells(Fleet().observe(np.random.default_rng(1)))))


def left_out(found: CellsDocument) -> set[int]:
    """Windows that no pod has; each is had by all or none."""
    flags = np.array([pod.warm_up or [False] * len(found.windows.start) for pod in found.pods])
    assert (flags.all(axis=0) == flags.any(axis=0)).all()
    return set(np.flatnonzero(flags.all(axis=0)).tolist())


@pytest.mark.parametrize(
    ("spans", "windows"),
    [
        pytest.param([], set(), id="none"),
        pytest.param([(130.0, 140.0)], {2}, id="inside-a-window"),
        pytest.param([(130.0, 185.0)], {2, 3}, id="over-an-edge"),
        # What ends at 175 may be scraped half a window later, at 205.
        pytest.param([(130.0, 175.0)], {2, 3}, id="scraped-in-the-next"),
        pytest.param([(120.0, 140.0)], {2}, id="begins-at-an-edge"),
        pytest.param([(10.0, 20.0), (1790.0, 9999.0)], {0, 29}, id="two"),
        pytest.param([(5000.0, 6000.0)], set(), id="elsewhere"),
    ],
)
def test_windows_in_which_prompts_were_sent_are_left_out_for_all_pods(
    spans: list[tuple[float, float]], windows: set[int]
) -> None:
    found = document()
    start = found.windows.start[0]
    assert left_out(without_probes(found, [(start + a, start + b) for a, b in spans])) == windows


def test_a_pods_own_warm_up_stays() -> None:
    found = document()
    first = found.pods[0].model_copy(update={"warm_up": [True] + [False] * 29})
    found = found.model_copy(update={"pods": [first, *found.pods[1:]]})
    start = found.windows.start[0]
    marked = without_probes(found, [(start + 600.0, start + 601.0)])
    assert marked.pods[0].warm_up == [w in {0, 10} for w in range(30)]
    assert marked.pods[1].warm_up == [w == 10 for w in range(30)]


def test_scores_leave_out_the_windows_of_their_probe(tmp_path: Path) -> None:
    found = document()
    start = found.windows.start[0]
    header = {
        "schema": "inference-rollouts.io/analysis-scores/v1",
        "started": start + 61.0,
        "ended": start + 80.0,
    }
    rows = [{"id": "a", "arm": arm, "score": 1.0} for arm in ("canary", "stable")]
    file = tmp_path / "scores.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in (header, *rows)))
    assert left_out(with_scores(found, [file])) == {1}


def test_a_book_keeps_the_times_of_probes_once() -> None:
    first = ProbeTimes(ended=((1.5, 2.5),))
    book = Book().with_probes(first, 3.0)
    again = read_book(written_book({}, "k.json", book), "k.json")
    assert again.probes == [(1.5, 2.5)]
    assert again.with_probes(first, 4.0) is again
    earlier = ProbeTimes(ended=((0.0, 1.0), (1.5, 2.5)))
    assert again.with_probes(earlier, 4.0).probes == [(0.0, 1.0), (1.5, 2.5)]
