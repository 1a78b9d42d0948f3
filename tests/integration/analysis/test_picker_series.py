"""The picker's own series become cells: adapters on shared pods, versions inside one pool.

The pages are those of the picker itself; only the clock of the scrapes is made up.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inference_analysis import checking, translating
from inference_analysis.capture_settings import CaptureSettings
from inference_analysis.collecting import cells_document, collected
from inference_analysis.errors import InputError
from inference_analysis.evaluation import Evaluation, evaluate
from inference_analysis.increments import Grid
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.picker_arms import PickerArms, PickerBy
from inference_analysis.verdicts import Outcome, Verdict
from inference_picker.messages import Ended, Finish, Phase, Pick, Sample, TokenTimes, Usage
from inference_picker.metrics import Metrics
from inference_picker.pool import Endpoint, StaticSource, make_snapshot
from inference_picker.recording import Recorder
from inference_picker.shares_series import SharesCollector
from support.picker_rig import RECOMMENDED, running_setup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inference_picker.pool import PoolSnapshot

SCRAPE_S = 30.0
WINDOWS = 6
GRID = Grid(since_s=940.0, start_s=1000.0, seconds=60.0, width=WINDOWS)
ADAPTERS = PickerArms(
    namespace="llm",
    rollout="chat",
    by=PickerBy.ADAPTERS,
    canary_adapter="travel-v2",
    stable_adapter="travel-v1",
)
VERSIONS = PickerArms(
    namespace="llm", rollout="chat", by=PickerBy.VERSIONS, canary_hash="new", stable_hash="old"
)


class Pages:
    """Answers selectors from a picker's pages, as Prometheus does from its scrapes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._samples: dict[tuple[tuple[str, str], ...], list[list[Any]]] = {}

    def scrape(self, page: str, at: float, **more: str) -> None:
        # The page also has the series under the llm-d router's names.
        own_lines = [line for line in page.splitlines() if "inference_picker_" in line]
        for family in text_string_to_metric_families("\n".join(own_lines) + "\n"):
            for sample in family.samples:
                labels = sample.labels | {"__name__": sample.name}
                # What a PodMonitor adds: the picker's own pod, and the port's name as endpoint.
                own = {"namespace": "llm", "pod": "picker-0", "instance": "10.0.0.9:9090"}
                if "endpoint" in labels:
                    labels["exported_endpoint"] = labels.pop("endpoint")
                labels |= own | {"endpoint": "metrics"} | more
                key = tuple(sorted((k, v) for k, v in labels.items() if v))
                self._samples.setdefault(key, []).append([at, str(sample.value)])

    def samples(self, selector: str, *, since_s: float, until_s: float) -> list[dict[str, Any]]:
        matchers = re.findall(r'(\w+)(=~|!=|=)("(?:[^"\\]|\\.)*")', selector)
        found = []
        for key, values in self._samples.items():
            labels = dict(key)
            inside = [v for v in values if since_s < v[0] <= until_s]
            if inside and all(
                _matches(labels.get(n, ""), op, json.loads(t)) for n, op, t in matchers
            ):
                found.append({"metric": labels, "values": inside})
        return found


def _matches(value: str, operator: str, text: str) -> bool:
    if operator == "=~":
        return re.fullmatch(text, value) is not None
    return (value == text) is (operator == "=")


def cells(pages: Pages, arms: PickerArms, grid: Grid = GRID) -> dict[str, Any]:
    settings = CaptureSettings(
        grid=grid, warm_up_s=0.0, pod_label="pod", shared=arms.shared, no_pods=arms.remedy()
    )
    found = collected(pages, arms, arms.families, settings)  # type: ignore[arg-type]
    look = {"id": "look-1", "fraction": 1.0}
    return cells_document(arms, found, look=look, policy={}, ledger=None)


def judged(document: dict[str, Any]) -> Evaluation:
    checked = checking.parse(json.dumps(document))
    return evaluate(
        translating.observations(checked),
        translating.policy(checked.policy),
        LookRequest(id="look-1", fraction=1.0),
        Ledger(),
        fingerprint="x",
    )


class Picker:
    """Finished requests, written by the picker's own recorder."""

    def __init__(self, pods: list[str], versions: list[str]) -> None:
        endpoints = [
            Endpoint(address=f"10.0.0.{i}:8000", pod=pod, version=version)
            for i, (pod, version) in enumerate(zip(pods, versions, strict=True))
        ]
        names = ("travel-v1", "travel-v1-control", "travel-v2")
        endpoints = [replace(each, models=frozenset(names)) for each in endpoints]
        self.pool: PoolSnapshot = make_snapshot(endpoints, [])
        self.metrics = Metrics()
        self._recorder = Recorder(self.metrics)

    def finish(self, pod: int, target: str, seconds: float, **changes: Any) -> None:
        fields = {"sample": Sample.CANARY, "phase": Phase.WARM, "bucket": ""}
        failed = changes.pop("failed", False)
        endpoint = self.pool.endpoints[pod]
        pick = Pick(
            endpoints=(endpoint.address,),
            model=target,
            target=target,
            version=endpoint.version,
            **(fields | changes),
        )
        usage = Usage(prompt=100, output=20, cached=50)
        self._recorder.finished(
            Finish(
                pick=pick,
                ended=Ended.COMPLETE,
                duration_s=seconds * 5.0,
                status=500 if failed else 200,
                first_token_s=seconds,
                tokens=TokenTimes(gaps_s=((seconds / 10.0, 19),), per_token_s=0.02, usage=usage),
            ),
            self.pool,
        )

    def page(self) -> str:
        return generate_latest(self.metrics).decode()


def scrapes() -> Iterator[float]:
    """From before the first window to the end of the last."""
    yield from np.arange(GRID.since_s + 5.0, GRID.end_s + SCRAPE_S, SCRAPE_S)


def adapters(
    slower: float = 1.0,
    *,
    pods: int = 5,
    control: str = "travel-v1-control",
    pages: Pages | None = None,
    **more: str,
) -> Pages:
    rng = np.random.default_rng(2)
    picker = Picker([f"vllm-{i}" for i in range(pods)], ["one"] * pods)
    pages = Pages() if pages is None else pages
    for at in scrapes():
        for pod in range(pods):
            for target, factor in (("travel-v2", slower), (control, 1.0)):
                for _ in range(40):
                    took = (0.1 + 0.1 * pod) * factor * float(np.exp(0.1 * rng.standard_normal()))
                    picker.finish(pod, target, took)
                # What a pod does while it warms up is not the version's doing.
                picker.finish(pod, target, 30.0, phase=Phase.WARMUP)
        pages.scrape(picker.page(), at, **more)
    return pages


@pytest.mark.parametrize(
    ("slower", "verdict"),
    [pytest.param(1.0, Verdict.PASS, id="equal"), pytest.param(1.3, Verdict.FAIL, id="slower")],
)
def test_adapters_are_compared_pod_by_pod(slower: float, verdict: Verdict) -> None:
    document = cells(adapters(slower), ADAPTERS)
    names = {pod["name"] for pod in document["pods"]}
    assert names == {
        f"vllm-{i}/{adapter}" for i in range(5) for adapter in ("travel-v2", "travel-v1-control")
    }
    first = document["pods"][0]
    assert first["server"] == "vllm-0"
    # Forty-one requests a scrape, two scrapes a window; what warms up has no latencies.
    assert first["requests"] == [82] * WINDOWS
    assert first["covered"] == first["requests"]
    assert first["histograms"]["ttft"]["count"] == [80] * WINDOWS
    assert first["cacheHits"] == [80 * 50.0] * WINDOWS
    assert {"ttft", "itl", "tpot", "e2e", "prompt_tokens", "output_tokens"} == set(
        first["histograms"]
    )
    found = judged(document)
    assert found.decision.verdict is verdict
    comparison = found.results[0].comparison
    assert comparison is not None
    assert (comparison.unit, comparison.n_canary) == ("pod x adapter", 5)


def test_the_analysis_own_prompts_are_not_the_canarys() -> None:
    # They name the adapter themselves, which the picker counts as background, and last long.
    rng = np.random.default_rng(2)
    picker = Picker([f"vllm-{i}" for i in range(5)], ["one"] * 5)
    pages = Pages()
    for at in scrapes():
        for pod in range(5):
            for target, sample in (("v2", Sample.CANARY), ("v1-control", Sample.CONTROL)):
                for _ in range(40):
                    took = 0.1 * float(np.exp(0.1 * rng.standard_normal()))
                    picker.finish(pod, f"travel-{target}", took, sample=sample)
            picker.finish(pod, "travel-v2", 30.0, sample=Sample.BACKGROUND)
        pages.scrape(picker.page(), at)
    assert judged(cells(pages, ADAPTERS)).decision.verdict is Verdict.PASS


def test_without_a_control_ttft_is_for_display_only() -> None:
    arms = replace(ADAPTERS, with_control=False)
    document = cells(adapters(1.3, control="travel-v1"), arms)
    assert set(document["display"]) == {"ttft", "e2e"}
    found = judged(document)
    outcomes = {r.gate.name: r.outcome for r in found.results}
    assert outcomes["ttft/mean"] is Outcome.SHOWN
    assert outcomes["e2e/mean"] is Outcome.SHOWN
    assert "travel-v1-control with the canary's share" in found.results[-1].reason


def test_two_pools_with_adapters_of_the_same_names_are_not_added_up() -> None:
    # One picker process may serve both; the one with a slower canary is that of the Rollout.
    pages = adapters(pool="llm/code")
    adapters(1.3, pages=pages, pool="llm/chat")

    with pytest.raises(InputError, match=r"of 2 pools: llm/chat, llm/code.*arms.pool"):
        cells(pages, ADAPTERS)
    for pool, verdict in (("chat", Verdict.FAIL), ("llm/code", Verdict.PASS)):
        document = cells(pages, replace(ADAPTERS, pool=pool))
        assert document["pods"][0]["requests"] == [82] * WINDOWS
        assert judged(document).decision.verdict is verdict


def test_a_label_of_the_target_named_pool_hides_no_pool() -> None:
    # As of a node pool: Prometheus keeps the target's and renames the picker's.
    pages = adapters(exported_pool="llm/code", pool="h100")
    adapters(1.3, pages=pages, exported_pool="llm/chat", pool="h100")

    with pytest.raises(InputError, match=r"of 2 pools: llm/chat, llm/code"):
        cells(pages, ADAPTERS)
    document = cells(pages, replace(ADAPTERS, pool="chat"))
    assert judged(document).decision.verdict is Verdict.FAIL


def test_an_adapter_without_traffic_is_named() -> None:
    with pytest.raises(InputError, match=r"stable has no series at all.*second alias of travel-v1"):
        cells(adapters(control="travel-v1"), ADAPTERS)


def versions(users: int = 40, control: Sample = Sample.CONTROL) -> Pages:
    """Sticky users on two canary and three stable pods; the control and the rest beside it."""
    picker = Picker([f"chat-{i}" for i in range(5)], ["new", "new", "old", "old", "old"])
    pages = Pages()
    rng = np.random.default_rng(4)
    for at in scrapes():
        for user in range(users):
            for sample, pods in ((Sample.CANARY, (0, 1)), (control, (2, 3, 4))):
                took = 0.2 * float(np.exp(0.1 * rng.standard_normal()))
                picker.finish(
                    int(rng.choice(pods)), "base", took, sample=sample, bucket=str(user % 10)
                )
        # The rest of stable is slower here, as a busier part of a pool may be.
        picker.finish(2, "base", 5.0, sample=Sample.BACKGROUND)
        picker.finish(0, "base", 0.2, failed=at > 1180.0, bucket="3")
        pages.scrape(picker.page(), at)
    return pages


def test_versions_inside_a_pool_are_compared_with_the_control_and_by_users() -> None:
    document = cells(versions(), VERSIONS)
    assert {p["name"] for p in document["pods"] if p["arm"] == "canary"} == {"chat-0", "chat-1"}
    stable = [p for p in document["pods"] if p["arm"] == "stable"]
    assert {p["name"] for p in stable} == {"chat-2", "chat-3", "chat-4"}
    total = sum(sum(filter(None, p["requests"])) for p in stable)
    # Forty users, two scrapes a window: the background is not among them.
    assert total == 40 * 2 * WINDOWS
    assert {b["name"] for b in document["sticky"]} == {str(i) for i in range(10)}
    # One request a scrape on one stable pod is neither canary nor control.
    assert [(p["name"], p["requests"]) for p in document["background"]] == [
        ("chat-2", [2] * WINDOWS)
    ]
    failed = sum(sum(filter(None, p["errors"])) for p in document["pods"])
    assert failed == sum(sum(filter(None, b["errors"])) for b in document["sticky"])
    assert 4 <= failed <= 7
    found = judged(document)
    assert found.decision.verdict is not Verdict.FAIL
    assert found.observations.sticky is not None


@pytest.mark.parametrize("control", [Sample.CONTROL, Sample.UNMATCHED])
def test_a_control_arm_that_the_picker_marks_decides_nothing_by_its_first_tokens(
    control: Sample,
) -> None:
    document = cells(versions(users=2, control=control), VERSIONS)

    # Errors and tokens are compared with its requests in any case.
    stable = [each for each in document["pods"] if each["arm"] == "stable"]
    assert sum(sum(filter(None, each["requests"])) for each in stable) == 2 * 2 * WINDOWS
    assert set(document.get("display", ())) == (
        {"ttft", "e2e"} if control is Sample.UNMATCHED else set()
    )


def ejected(diverted: int = 0) -> Pages:
    """Three canary pods that answer 500: ejected, tried again ten seconds later, then twenty …

    The first requests come while the picker is watched already, as pods enter their slow start.
    ``diverted`` requests a scrape are drawn for the canary while all three are out.
    """
    picker = Picker([f"chat-{i}" for i in range(6)], ["new"] * 3 + ["old"] * 3)
    pages = Pages()
    tries = iter((3, 0, 1, 1, 0, 0, 1, *[0] * 9, 1))
    for at in scrapes():
        failures = next(tries, 0) if at > 1030.0 else 0
        for pod in range(3):
            for _ in range(failures):
                picker.finish(pod, "base", 0.2, failed=True, phase=Phase.WARMUP)
            for _ in range(40):
                picker.finish(3 + pod, "base", 0.2, sample=Sample.CONTROL)
        unmet = {("new", "ejected"): diverted * max(0, int((at - 1030.0) // SCRAPE_S))}
        shares = SharesCollector(source=StaticSource(picker.pool), unmet=unmet)
        registry = CollectorRegistry()
        registry.register(shares)
        pages.scrape(picker.page() + generate_latest(registry).decode(), at)
    return pages


def test_a_canary_that_only_fails_is_failed_by_the_few_requests_it_got() -> None:
    document = cells(ejected(), VERSIONS)
    canary = [p for p in document["pods"] if p["arm"] == "canary"]
    assert {p["name"] for p in canary} == {"chat-0", "chat-1", "chat-2"}
    # Six tries of each pod, from the very first one on.
    assert sum(sum(filter(None, p["errors"])) for p in canary) == 18
    assert sum(sum(filter(None, p["requests"])) for p in canary) == 18
    found = judged(document)
    assert found.decision.verdict is Verdict.FAIL
    assert any("errors" in reason for reason in found.decision.reasons)


def test_requests_that_an_ejected_canary_could_not_get_are_gross_harm() -> None:
    document = cells(ejected(diverted=20), VERSIONS)
    # 0 until 1035 s, then 20 a scrape.
    assert document["diverted"] == [0, 40, 40, 40, 40, 40]
    found = judged(document)
    checks = {check.check: check for check in found.gross}
    assert checks["ejected"].fired
    assert "went to stable because all of its servers are ejected (200)" in checks["ejected"].text
    assert found.decision.verdict is Verdict.FAIL


def test_a_canary_that_was_out_for_a_moment_is_not_harmed_by_it() -> None:
    document = cells(versions(), VERSIONS)
    found = judged(document | {"diverted": [0, 900, 900, 0, 0, 0]})
    assert not any(check.fired for check in found.gross)
    assert "diverted" not in document


def test_few_users_on_the_canary_are_inconclusive() -> None:
    found = judged(cells(versions(users=5), VERSIONS))
    assert found.decision.verdict is Verdict.INCONCLUSIVE
    assert any("buckets of users" in reason for reason in found.decision.reasons)


async def test_a_picker_behind_a_real_envoy_tells_its_adapters_apart(tmp_path: Path) -> None:
    """Two pages of the metrics port, before and after 200 requests split 90 to 10."""
    pages = Pages()
    grid = Grid(since_s=900.0, start_s=1000.0, seconds=60.0, width=2)
    async with running_setup(tmp_path, RECOMMENDED) as setup:
        address = f"http://127.0.0.1:{setup.picker.metrics_port}/metrics"

        async def scrape(at: float) -> None:
            async with setup.client.get(address) as response:
                pages.scrape(await response.text(), at)

        # So many that every server has had both adapters: a series begins with its first request.
        for _ in range(5):
            await asyncio.gather(*(setup.chat() for _ in range(20)))
        await setup.landed()
        for at in (970.0, 985.0, 1000.0):
            await scrape(at)
        for _ in range(10):
            await asyncio.gather(*(setup.chat() for _ in range(20)))
        await setup.landed()
        for at in (1015.0, 1030.0, 1045.0, 1060.0, 1075.0, 1090.0, 1105.0, 1120.0):
            await scrape(at)
    arms = replace(
        ADAPTERS,
        canary_adapter="travel-helper-v2",
        stable_adapter="travel-helper-v1",
        control_adapter="travel-helper-v1",
    )
    document = cells(pages, arms, grid)
    sums = {
        arm: sum(p["requests"][0] for p in document["pods"] if p["arm"] == arm)
        for arm in ("canary", "stable")
    }
    assert sum(sums.values()) == 200
    assert 16 <= sums["canary"] <= 24
    assert all(p["requests"][1] == 0 for p in document["pods"])
    ttft = [p["histograms"]["ttft"]["count"][0] for p in document["pods"]]
    assert sum(ttft) == 200
