"""The situations in which the analysis' error rates and power are measured, with their bars."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from inference_analysis.comparisons import compare_pods
from inference_analysis.latencies import mean_effects, tail_edge, tail_effects
from inference_analysis.policies import DEFAULT_MARGINS, Gate, Mode, Policy, Prior, Role, Statistic
from inference_analysis.verdicts import Outcome
from support.analysis_judges import kayenta_fails, mann_whitney_p, ratio_gate_fails
from support.analysis_simulation import TPOT, TTFT, Fleet, Metric, Plan, play
from support.analysis_users import CachedAdapters, StickyUsers

if TYPE_CHECKING:
    from support.analysis_simulation import Run, Source


def gate(
    metric: str,
    statistic: Statistic = Statistic.MEAN,
    role: Role = Role.PRIMARY,
    harm_margin: float = 0.0,
) -> Gate:
    """A gate with the default margin."""
    margin = DEFAULT_MARGINS[statistic]
    return Gate(
        metric=metric, statistic=statistic, role=role, margin=margin, harm_margin=harm_margin
    )


ONE = Policy(gates=(gate("ttft"),))
THREE = Policy(gates=(gate("ttft"), gate("tpot"), gate("errors", Statistic.RATE)))
TOLERANT = Policy(
    gates=(gate("ttft", harm_margin=0.02), gate("tpot", harm_margin=0.02), THREE.gates[2])
)
FAMILY = Policy(
    gates=(
        *THREE.gates,
        gate("quality", Statistic.SCORE, Role.SECONDARY),
        gate("e2e", role=Role.SECONDARY),
        gate("queue", role=Role.SECONDARY),
        gate("ttft", Statistic.TAIL, Role.SECONDARY),
        gate("tpot", Statistic.TAIL, Role.SECONDARY),
    )
)
TAILS = Policy(gates=(gate("ttft", Statistic.TAIL), gate("ttft")))
ERRORS = Policy(gates=(gate("errors", Statistic.RATE),))
# Gates that never fail, so that gross harm is counted by itself.
ONLY_GROSS = Policy(gates=ERRORS.gates, family_alpha=1e-12, primary_alpha=1e-12)
WITH_HISTORY = replace(
    THREE, priors={"ttft": Prior(sd=0.02, pods=11), "tpot": Prior(sd=0.02, pods=11)}
)
USERS = Policy(gates=(gate("ttft"), gate("errors", Statistic.RATE)))
# Inter-token times that all lie in one bucket of vLLM, 10 to 25 ms: no quantile moves.
QUICK = replace(TPOT, median_s=0.015, sdlog=0.1)
EIGHT = {"ttft": TTFT, "tpot": TPOT, "e2e": TTFT, "queue": TTFT}
FIVE_LOOKS = Plan()
ALL_SLOWER = {"ttft": 1.03, "tpot": 1.03}
# Steady pods: the bars' "pod sd 2 %" is all that pods differ by.
STEADY = Fleet(requests=200.0, drift_sd=0.0)
BASE = Fleet(requests=200.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet, how it is judged, and what share of runs may or must end how."""

    name: str
    fleet: Source
    policy: Policy = THREE
    plan: Plan = FIVE_LOOKS
    counts: Literal["fail", "pass", "gross", "suspect", "first"] = "fail"
    at_most: float | None = None
    at_least: float | None = None

    def hit(self, run: Run) -> bool:
        """Whether a run counts."""
        match self.counts:
            case "fail":
                return run.failed_at > 0
            case "first":
                return run.failed_at == 1
            case "pass":
                return run.passed
            case "gross":
                return any(check.fired for e in run.evaluations for check in e.gross)
            case "suspect":
                return any(r.outcome is Outcome.SUSPECT for r in run.last.results)


EVERYTHING = Plan(resumes=6, retry=True)
SCENARIOS = (
    Scenario(name="A/A 2v8, 3 gates", fleet=BASE, at_most=0.05),
    Scenario(name="A/A 4v16, 3 gates", fleet=replace(BASE, canary=4, stable=16), at_most=0.05),
    Scenario(name="A/A 1v3, 3 gates", fleet=replace(BASE, canary=1, stable=3), at_most=0.05),
    Scenario(name="A/A 1v9, 3 gates", fleet=replace(BASE, canary=1, stable=9), at_most=0.05),
    Scenario(
        name="A/A 2v8, all parts: 8 gates, 6 resumes, retry",
        fleet=replace(BASE, metrics=EIGHT, prompts=100),
        policy=FAMILY,
        plan=EVERYTHING,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 1v3, all parts: 8 gates, 6 resumes, retry",
        fleet=replace(BASE, canary=1, stable=3, metrics=EIGHT, prompts=100),
        policy=FAMILY,
        plan=EVERYTHING,
        at_most=0.05,
    ),
    Scenario(name="A/A 2v8, 20 looks", fleet=BASE, plan=Plan(looks=20), at_most=0.05),
    Scenario(
        name="A/A 2v8, load 3:1 and trend +50 %",
        fleet=replace(BASE, canary_load=3.0, trend=0.5, requests=40.0),
        policy=replace(THREE, load_high=10.0),
        at_most=0.05,
    ),
    Scenario(
        name="A/A 2v8, load 1:9",
        fleet=replace(BASE, canary_load=1 / 9, requests=180.0),
        at_most=0.05,
    ),
    Scenario(
        name="A/A 4v8, ramp 1 to 4 pods, trend +50 %",
        fleet=replace(BASE, canary=4, ramp=(1, 1, 2, 3, 4), trend=0.5),
        at_most=0.05,
    ),
    Scenario(name="A/A 2v8, t3 pods", fleet=replace(BASE, pod_t_df=3.0), at_most=0.065),
    Scenario(
        name="A/A 2v8, one pod in ten 20 % slow", fleet=replace(BASE, slow_share=0.1), at_most=0.06
    ),
    Scenario(
        name="A/A 1v3, one pod in ten 20 % slow",
        fleet=replace(BASE, canary=1, stable=3, slow_share=0.1),
    ),
    Scenario(
        name="A/A 2v8, a canary pod 20 % slow: FAIL",
        fleet=replace(BASE, slow_pods=(0,)),
    ),
    Scenario(
        name="A/A 2v8, a canary pod 20 % slow: names the pod",
        fleet=replace(BASE, slow_pods=(0,)),
        counts="suspect",
    ),
    Scenario(
        name="A/A 2v8 errors, pod log-rate sd .5 and bursts: FAIL",
        fleet=replace(BASE, error_pod_sd=0.5, burst_chance=0.005, requests=100.0, metrics={}),
        policy=ERRORS,
        at_most=0.08,
    ),
    Scenario(
        name="A/A 2v8 errors, pod log-rate sd .5 and bursts: gross",
        fleet=replace(BASE, error_pod_sd=0.5, burst_chance=0.005, requests=100.0, metrics={}),
        policy=ONLY_GROSS,
        counts="gross",
        at_most=0.02,
    ),
    Scenario(
        name="A/A 1v3 gross harm, 30 looks",
        fleet=replace(BASE, canary=1, stable=3, requests=20.0),
        policy=ONLY_GROSS,
        plan=Plan(looks=30),
        counts="gross",
        at_most=0.01,
    ),
    Scenario(
        name="A/A 1v3 gross harm, 30 looks, heavy tails",
        fleet=replace(BASE, canary=1, stable=3, requests=20.0, metrics={"ttft": Metric(sdlog=1.6)}),
        policy=ONLY_GROSS,
        plan=Plan(looks=30),
        counts="gross",
        at_most=0.01,
    ),
    Scenario(
        name="A/A 1v3, 3 gates, history",
        fleet=replace(STEADY, canary=1, stable=3),
        policy=WITH_HISTORY,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 1v3, 3 gates, history: PASS",
        fleet=replace(STEADY, canary=1, stable=3),
        policy=WITH_HISTORY,
        counts="pass",
    ),
    Scenario(
        name="+20 % TTFT 1v3, 3 gates, history",
        fleet=replace(STEADY, canary=1, stable=3, slowdown={"ttft": 1.2}),
        policy=WITH_HISTORY,
        at_least=0.95,
    ),
    Scenario(
        name="A/A 2v8 quality alone, 100 prompts",
        fleet=replace(BASE, prompts=100, metrics={}),
        policy=Policy(gates=(gate("quality", Statistic.SCORE),)),
        plan=Plan(looks=1),
        at_most=0.04,
    ),
    Scenario(
        name="+10 % TTFT 2v8, 3 gates",
        fleet=replace(STEADY, slowdown={"ttft": 1.1}),
        at_least=0.85,
    ),
    Scenario(
        name="+10 % TTFT 4v16, 3 gates",
        fleet=replace(STEADY, canary=4, stable=16, slowdown={"ttft": 1.1}),
        at_least=0.95,
    ),
    Scenario(
        name="+10 % TTFT 2v8, 3 gates, drift 5 %",
        fleet=replace(BASE, slowdown={"ttft": 1.1}),
    ),
    Scenario(
        name="+10 % TTFT 4v16, 3 gates, drift 5 %",
        fleet=replace(BASE, canary=4, stable=16, slowdown={"ttft": 1.1}),
    ),
    Scenario(
        name="+10 % TTFT 2v8, family of 8",
        fleet=replace(STEADY, metrics=EIGHT, prompts=100, slowdown={"ttft": 1.1}),
        policy=FAMILY,
        at_least=0.70,
    ),
    Scenario(
        name="+10 % of the slowest tenth 4v16, 24k requests, 2 gates",
        fleet=replace(STEADY, canary=4, stable=16, tail={"ttft": 1.1}),
        policy=TAILS,
        at_least=0.90,
    ),
    Scenario(
        name="+20 % TTFT 1v3, 3 gates",
        fleet=replace(STEADY, canary=1, stable=3, slowdown={"ttft": 1.2}),
    ),
    Scenario(
        name="3 times slower 1v3: FAIL at the first look",
        fleet=replace(BASE, canary=1, stable=3, slowdown={"ttft": 3.0}),
        counts="first",
        at_least=0.95,
    ),
    Scenario(
        name="2 times slower 1v3: FAIL at the first look",
        fleet=replace(BASE, canary=1, stable=3, slowdown={"ttft": 2.0}),
        counts="first",
    ),
    Scenario(
        name="errors 5 times 2v8, gross harm",
        fleet=replace(BASE, error_ratio=5.0, requests=100.0, metrics={}),
        policy=ONLY_GROSS,
        counts="gross",
        at_least=0.95,
    ),
    Scenario(
        name="errors doubled 2v8: FAIL",
        fleet=replace(BASE, error_ratio=2.0, metrics={}),
        policy=ERRORS,
    ),
    Scenario(
        name="+3 % on all 2v8: FAIL", fleet=replace(STEADY, slowdown=ALL_SLOWER), at_most=0.22
    ),
    Scenario(
        name="+3 % on all 2v8, harm margin 2 %: FAIL",
        fleet=replace(STEADY, slowdown=ALL_SLOWER),
        policy=TOLERANT,
        at_most=0.08,
    ),
    Scenario(
        name="at the margin (+10 %) 2v8, 6 resumes: false PASS",
        fleet=replace(BASE, slowdown={"ttft": 1.1}),
        policy=ONE,
        plan=Plan(resumes=6),
        counts="pass",
        at_most=0.05,
    ),
    Scenario(
        name="A/A 2v8, prompts 10 % longer: FAIL",
        fleet=replace(BASE, prompt_ratio=1.1),
        at_most=0.063,
    ),
    Scenario(
        name="+10 % of tokens of 15 ms, 2v8: FAIL",
        fleet=replace(STEADY, metrics={"ttft": TTFT, "tpot": QUICK}, slowdown={"tpot": 1.1}),
        at_least=0.85,
    ),
    Scenario(
        name="A/A 1,000 sticky heavy-tailed users at 10 %, by bucket",
        fleet=StickyUsers(),
        policy=USERS,
        at_most=0.05,
    ),
    Scenario(
        name="A/A the same users, pods alone as the unit",
        fleet=StickyUsers(by_user=False),
        policy=USERS,
    ),
    Scenario(
        name="3 times slower, 1,000 sticky users at 10 %",
        fleet=StickyUsers(slowdown=3.0),
        policy=USERS,
    ),
    Scenario(
        name="A/A 2 canary pods v 2 of 8 stable as matched control",
        fleet=replace(BASE, control=2),
        at_most=0.05,
    ),
    Scenario(
        name="3 times slower, 1 canary pod v 1 of 4 stable as control: FAIL at the first look",
        fleet=replace(BASE, canary=1, stable=4, control=1, slowdown={"ttft": 3.0}),
        counts="first",
        at_least=0.95,
    ),
    Scenario(
        name="A/A second alias of one adapter at 5 %, prefix cache on",
        fleet=CachedAdapters(),
        policy=ONE,
        at_most=0.05,
    ),
    Scenario(
        name="A/A adapter at 5 % against the rest, prefix cache on",
        fleet=CachedAdapters(control=False),
        policy=replace(ONE, load_low=0.0001, load_high=1e9),
    ),
    Scenario(
        name="+20 % TTFT, adapter at 5 % against its control",
        fleet=CachedAdapters(slowdown=1.2),
        policy=ONE,
    ),
    Scenario(
        name="A/A quality, 200 prompts of 5 answers: PASS",
        fleet=replace(BASE, prompts=200, metrics={}),
        policy=Policy(gates=(gate("quality", Statistic.SCORE),), mode=Mode.PROVE),
        counts="pass",
    ),
    Scenario(name="A/A 2v8, 3 gates: PASS", fleet=STEADY, counts="pass"),
    Scenario(
        name="A/A 4v16, 3 gates: PASS",
        fleet=replace(STEADY, canary=4, stable=16),
        counts="pass",
    ),
    Scenario(
        name="quality -8 points, 300 prompts of 5 answers: FAIL",
        fleet=replace(BASE, prompts=300, quality_loss=0.08, metrics={}),
        policy=Policy(gates=(gate("quality", Statistic.SCORE),), mode=Mode.PROVE),
        at_least=0.95,
    ),
)


def rate(scenario: Scenario, runs: int) -> float:
    """Share of the runs that count; the seed follows from the scenario's name."""
    rng = np.random.default_rng(zlib.crc32(scenario.name.encode()))
    found = (play(scenario.fleet, scenario.policy, scenario.plan, rng) for _ in range(runs))
    return sum(map(scenario.hit, found)) / runs


def keeps_bar(scenario: Scenario, found: float, runs: int) -> bool | None:
    """Whether the rate keeps its bar, within 2.6 standard errors; None without a bar."""
    if scenario.at_most is not None:
        bar = scenario.at_most
        return found <= bar + 2.6 * float(np.sqrt(bar * (1.0 - bar) / runs))
    if scenario.at_least is not None:
        bar = scenario.at_least
        return found >= bar - 2.6 * float(np.sqrt(bar * (1.0 - bar) / runs))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Identical versions, one look, one metric: does a single test keep its level?"""

    name: str
    fleet: Fleet


SIZES = {"1v3": (1, 3), "1v9": (1, 9), "2v8": (2, 8)}
SPREADS = {"iid": (0.0, 0.0), "mild": (0.03, 0.05), "typical": (0.05, 0.10)}
LOADS = {"3:1": 3.0, "1:1": 1.0, "1:3": 1 / 3, "1:9": 1 / 9}
SETTINGS = tuple(
    Setting(
        name=f"{size}, {spread}, load {load}",
        fleet=Fleet(
            canary=canary,
            stable=stable,
            requests=60.0,
            canary_load=ratio,
            pod_sd=sd,
            drift_sd=drift,
            metrics={"ttft": TTFT},
        ),
    )
    for size, (canary, stable) in SIZES.items()
    for spread, (sd, drift) in SPREADS.items()
    for load, ratio in LOADS.items()
)
JUDGES = ("mean", "tail", "Mann-Whitney", "p99 ratio", "Kayenta")
OTHERS = ("Mann-Whitney", "p99 ratio", "Kayenta")
SIDE_BY_SIDE = (
    "A/A 2v8, 3 gates",
    "A/A 4v16, 3 gates",
    "A/A 1v3, 3 gates",
    "A/A 2v8, load 3:1 and trend +50 %",
    "A/A 4v8, ramp 1 to 4 pods, trend +50 %",
    "A/A 2v8, one pod in ten 20 % slow",
    "A/A 1,000 sticky heavy-tailed users at 10 %, by bucket",
    "A/A adapter at 5 % against the rest, prefix cache on",
    "A/A second alias of one adapter at 5 %, prefix cache on",
    "+10 % TTFT 2v8, 3 gates",
    "+10 % TTFT 4v16, 3 gates",
    "+20 % TTFT 1v3, 3 gates",
)


def rejections(setting: Setting, runs: int) -> dict[str, float]:
    """Share of runs in which each way to judge calls an identical canary worse.

    ``mean`` and ``tail`` are this project's single tests at .05; ``Mann-Whitney`` is one-sided at
    .05 on all requests (as bucket ranks); ``p99 ratio`` fails when more than 2 of 12 looks at the
    last five minutes read a ratio above 1.10 from the buckets; ``Kayenta`` is its judge on the
    arms' means by minute.
    """
    rng = np.random.default_rng(zlib.crc32(setting.name.encode()))
    counts = dict.fromkeys(JUDGES, 0)
    for _ in range(runs):
        data = setting.fleet.observe(rng)
        histogram, strata = data.histograms["ttft"], np.zeros(len(data.pods))
        effects = {"mean": mean_effects(histogram, data.usable, data.canary, strata)}
        edge = tail_edge(histogram, data.usable & ~data.canary[:, None])
        if edge is not None:
            effects["tail"] = tail_effects(histogram, edge, data.usable, data.canary, strata)
        for name, pods in effects.items():
            comparison = compare_pods(pods)
            counts[name] += comparison is not None and comparison.harm_p(0.0) <= 0.05
        counts["Mann-Whitney"] += mann_whitney_p(data, histogram) <= 0.05
        counts["p99 ratio"] += ratio_gate_fails(data, histogram)
        counts["Kayenta"] += kayenta_fails(data, histogram)
    return {name: count / runs for name, count in counts.items()}


def side_by_side(scenario: Scenario, runs: int) -> dict[str, float]:
    """Share of the runs that this analysis and each of three common rules fail; the same runs.

    The others see TTFT of the whole run at once, and so look once where this analysis looks five
    times.
    """
    rng = np.random.default_rng(zlib.crc32(scenario.name.encode()))
    counts = dict.fromkeys(("this analysis", *OTHERS), 0)
    for _ in range(runs):
        run = play(scenario.fleet, scenario.policy, scenario.plan, rng)
        histogram = run.data.histograms["ttft"]
        counts["this analysis"] += run.failed_at > 0
        counts["Mann-Whitney"] += mann_whitney_p(run.data, histogram) <= 0.05
        counts["p99 ratio"] += ratio_gate_fails(run.data, histogram)
        counts["Kayenta"] += kayenta_fails(run.data, histogram)
    return {name: count / runs for name, count in counts.items()}
