from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from inference_analysis.checking import parse
from inference_analysis.errors import InputError
from inference_analysis.evaluation import evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.policies import Policy
from inference_analysis.schema import LedgerDocument
from inference_analysis.translating import ledger, ledger_document, observations, policy
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from collections.abc import Callable

FLEET = Fleet(canary=1, stable=3, windows=3, requests=50.0, prompts=12)
CONTENT = cells(FLEET.observe(np.random.default_rng(1)))

TTFT_GATE = {"metric": "ttft", "statistic": "mean"}


def pod(content: Any, number: int = 0) -> Any:
    return content["pods"][number]


def ttft(content: Any) -> Any:
    return pod(content)["histograms"]["ttft"]


def put(target: Any, key: Any, value: Any) -> None:
    target[key] = value


BAD: list[tuple[str, Callable[[Any], object], str]] = [
    (
        "other-version",
        lambda c: put(c, "schema", "inference-rollouts.io/analysis-cells/v2"),
        (
            "schema: Input should be 'inference-rollouts.io/analysis-cells/v1' "
            "(found 'inference-rollouts.io/analysis-cells/v2')"
        ),
    ),
    (
        "unknown-field",
        lambda c: put(c, "colour", 1),
        "colour: no such field. Check its spelling, or drop it",
    ),
    ("no-look", lambda c: c.pop("look"), "look: Field required"),
    (
        "fraction-over-one",
        lambda c: put(c["look"], "fraction", 1.2),
        "look.fraction: Input should be less than or equal to 1 (found 1.2)",
    ),
    (
        "primary-over-family",
        lambda c: put(c, "policy", {"primaryAlpha": 0.05}),
        "policy.primaryAlpha: 0.05 is more than familyAlpha 0.04, of which it is a part",
    ),
    (
        "load-band-inverted",
        lambda c: put(c, "policy", {"loadLow": 2.0}),
        "policy.loadLow: 2 is not below loadHigh",
    ),
    (
        "nothing-to-prove",
        lambda c: put(c, "policy", {"gates": [{**TTFT_GATE, "role": "secondary"}]}),
        "policy.gates: none is primary, so a PASS would need nothing",
    ),
    (
        "duplicate-gate",
        lambda c: put(c, "policy", {"gates": [TTFT_GATE, TTFT_GATE]}),
        "policy.gates[1]: the same as policy.gates[0]",
    ),
    (
        "harm-margin-over-margin",
        lambda c: put(c, "policy", {"gates": [{**TTFT_GATE, "harmMargin": 0.1}]}),
        "policy.gates[0].harmMargin: 0.1 is not below the margin 0.1",
    ),
    (
        "no-window",
        lambda c: put(c, "windows", {"start": [], "seconds": []}),
        "windows.start: empty. Collect at least one window",
    ),
    (
        "clock-skew",
        lambda c: put(c["windows"]["start"], 1, 30.0),
        (
            "windows.start[1]: 30 lies before the end 60 of the window before it. Windows "
            "ascend and do not overlap; is a clock wrong?"
        ),
    ),
    (
        "equal-hashes",
        lambda c: put(c["rollout"], "canaryHash", "9c1b"),
        (
            "rollout.canaryHash: equals stableHash '9c1b', so both arms are the same pods. Check "
            "the AnalysisTemplate's podTemplateHashValue args"
        ),
    ),
    (
        "empty-arm",
        lambda c: put(pod(c), "arm", "stable"),
        "pods: none of arm 'canary' among 4. Check the pods' labels",
    ),
    (
        "duplicate-pod",
        lambda c: put(pod(c, 2), "name", "stable-0"),
        "pods[2].name: 'stable-0' is also pods[1].name",
    ),
    (
        "unknown-arm",
        lambda c: put(pod(c), "arm", "baseline"),
        "pods[0].arm: Input should be 'canary' or 'stable' (found 'baseline')",
    ),
    (
        "short-column",
        lambda c: put(pod(c), "requests", [1, 2]),
        "pods[0].requests: 2 values for 3 windows",
    ),
    (
        "more-errors-than-requests",
        lambda c: pod(c).update(errors=[0, 70, 0], requests=[60, 60, 60]),
        "pods[0].errors[1]: 70 of 60 requests. Count failed ones in both",
    ),
    (
        "negative-bucket",
        lambda c: put(ttft(c)["buckets"][2], 4, -3),
        (
            "pods[0].histograms.ttft.buckets[2][4]: Input should be greater than or equal to 0 "
            "(found -3)"
        ),
    ),
    (
        "cumulated-buckets",
        lambda c: put(ttft(c)["buckets"], 1, [0] * 10 + [5] * 13),
        (
            "pods[0].histograms.ttft.buckets[1]: they sum to 65, count is 46. Buckets are "
            "increments of each bucket alone, not cumulated"
        ),
    ),
    (
        "bucket-missing",
        lambda c: ttft(c)["buckets"][0].pop(),
        (
            "pods[0].histograms.ttft.buckets[0]: 22 buckets for 22 edges; 23 are needed, the last "
            "for what exceeds every edge"
        ),
    ),
    (
        "edges-not-ascending",
        lambda c: put(ttft(c), "le", [0.1, 0.1]),
        (
            "pods[0].histograms.ttft.le: edges must ascend and not be empty, without +Inf "
            "(found [0.1, 0.1])"
        ),
    ),
    (
        "half-a-gap",
        lambda c: put(ttft(c)["sum"], 1, None),
        "pods[0].histograms.ttft.count[1]: count, sum and buckets must be null together",
    ),
    (
        "duplicate-prompt",
        lambda c: put(c["prompts"][3], "id", "p1"),
        "prompts[3].id: 'p1' is also prompts[1].id",
    ),
    (
        "score-above-one",
        lambda c: put(c["prompts"][0], "canary", [1.5]),
        "prompts[0].canary[0]: Input should be less than or equal to 1 (found 1.5)",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), [pytest.param(f, m, id=name) for name, f, m in BAD])
def test_each_fault_is_named_with_its_path(spoil: Callable[[Any], object], message: str) -> None:
    content = copy.deepcopy(CONTENT)
    spoil(content)
    with pytest.raises(InputError) as caught:
        parse(json.dumps(content))
    assert message in caught.value.problems


def test_nan_is_refused() -> None:
    content = copy.deepcopy(CONTENT)
    put(ttft(content)["sum"], 0, float("nan"))
    with pytest.raises(InputError, match=r"\(file\): Invalid JSON: NaN is no number"):
        parse(json.dumps(content))


def test_something_that_is_no_json_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(file\): Invalid JSON"):
        parse(b"verdict: pass")


def test_the_file_gives_back_what_was_observed() -> None:
    truth = FLEET.observe(np.random.default_rng(1))
    found = observations(parse(json.dumps(CONTENT)))
    assert found.pods == truth.pods
    assert found.prompts == truth.prompts
    assert np.array_equal(found.usable, truth.usable)
    for name, histogram in truth.histograms.items():
        assert np.array_equal(found.histograms[name].buckets, histogram.buckets)
        assert np.array_equal(found.histograms[name].sum, histogram.sum)


def test_gaps_and_warm_up_are_not_usable() -> None:
    content: Any = copy.deepcopy(CONTENT)
    for column in ("count", "sum", "buckets"):
        put(ttft(content)[column], 1, None)
    pod(content, 2)["warmUp"] = [True, False, False]
    usable = observations(parse(json.dumps(content))).usable
    assert usable.tolist() == [
        [True, False, True],
        [True, True, True],
        [False, True, True],
        [True, True, True],
    ]


def test_unequal_bucket_edges_are_told_per_metric() -> None:
    content: Any = copy.deepcopy(CONTENT)
    ttft(content)["le"][-1] = 5120.0
    found = observations(parse(json.dumps(content)))
    assert "ttft" not in found.histograms
    assert "bucket edges differ (canary-0: 22 edges up to 5120" in found.unequal_edges["ttft"]


def test_the_default_policy_of_the_file_is_the_default_policy() -> None:
    assert policy(parse(json.dumps(CONTENT)).policy) == Policy()


def test_a_ledger_survives_its_file() -> None:
    data = FLEET.observe(np.random.default_rng(1))
    book = Ledger()
    for number, fraction in enumerate((0.5, 0.5, 1.0)):
        request = LookRequest(id=str(number), fraction=fraction)
        book = evaluate(data, Policy(), request, book, fingerprint="a").ledger
    text = json.dumps(ledger_document(book))
    again = ledger(LedgerDocument.model_validate_json(text))
    assert ledger_document(again) == ledger_document(book)
    assert again.slots == book.slots == 1
