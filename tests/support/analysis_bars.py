"""The situations in which the analysis' error rates and power are measured, with their bars."""

from __future__ import annotations

from dataclasses import replace

from inference_analysis.policies import DEFAULT_MARGINS, Gate, Policy, Prior, Role, Statistic
from support.analysis_scenarios import Scenario
from support.analysis_simulation import TPOT, TTFT, Fleet, Metric, Plan
from support.analysis_users import CachedAdapters, StickyUsers


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
QUALITY = Policy(gates=(gate("quality", Statistic.SCORE),))
TAIL = Policy(gates=(gate("ttft", Statistic.TAIL),))
TOKENS = Policy(gates=(gate("tpot"),))
# Gates that never fail, so that gross harm is counted by itself.
ONLY_GROSS = Policy(gates=ERRORS.gates, family_alpha=1e-12, primary_alpha=1e-12)
WITH_HISTORY = replace(
    THREE, priors={"ttft": Prior(sd=0.02, pods=11), "tpot": Prior(sd=0.02, pods=11)}
)
USERS = Policy(gates=(gate("ttft"), gate("errors", Statistic.RATE)))
# Inter-token times that all lie in one bucket of vLLM, 10 to 25 ms: no quantile moves.
QUICK = replace(TPOT, median_s=0.015, sdlog=0.1)
EIGHT = {"ttft": TTFT, "tpot": TPOT, "e2e": TTFT, "queue": TTFT}
ALL_SLOWER = {"ttft": 1.03, "tpot": 1.03}
# Steady pods: the bars' "pod sd 2 %" is all that pods differ by.
STEADY = Fleet(requests=200.0, drift_sd=0.0)
BASE = Fleet(requests=200.0)
# Heavy-tailed pods: Student's t on three degrees of freedom, sd 5 %.
HEAVY = replace(STEADY, pod_sd=0.05, pod_t_df=3.0)
CLUSTERED = replace(BASE, error_pod_sd=0.5, burst_chance=0.005, requests=100.0, metrics={})
RAMP = replace(BASE, canary=4, ramp=(1, 1, 2, 3, 4), trend=0.5)
# Answers that lose five points on average, where each version is better at some prompts.
AT_MARGIN = 0.0537


ONE_LOOK = Plan(looks=1)
RESUMED = Plan(resumes=6)
EVERYTHING = Plan(resumes=6, retry=True)
SCENARIOS = (
    Scenario(name="A/A 2v8, 3 gates", fleet=BASE, policy=THREE, at_most=0.05),
    Scenario(
        name="A/A 4v16, 3 gates",
        fleet=replace(BASE, canary=4, stable=16),
        policy=THREE,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 1v3, 3 gates", fleet=replace(BASE, canary=1, stable=3), policy=THREE, at_most=0.05
    ),
    Scenario(
        name="A/A 1v9, 3 gates", fleet=replace(BASE, canary=1, stable=9), policy=THREE, at_most=0.05
    ),
    Scenario(
        name="A/A 2v8, all parts: 8 gates, 6 resumes, retry",
        fleet=replace(BASE, metrics=EIGHT, prompts=100),
        policy=FAMILY,
        plan=EVERYTHING,
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 1v3, all parts: 8 gates, 6 resumes, retry",
        fleet=replace(BASE, canary=1, stable=3, metrics=EIGHT, prompts=100),
        policy=FAMILY,
        plan=EVERYTHING,
        stop=False,
        at_most=0.05,
    ),
    Scenario(name="A/A 2v8, 20 looks", fleet=BASE, plan=Plan(looks=20), policy=THREE, at_most=0.05),
    Scenario(
        name="A/A 2v8, load 3:1 and trend +50 %",
        fleet=replace(BASE, canary_load=3.0, trend=0.5, requests=40.0),
        policy=replace(THREE, load_high=10.0),
        at_most=0.05,
    ),
    Scenario(
        name="A/A 2v8, load 1:9",
        fleet=replace(BASE, canary_load=1 / 9, requests=180.0),
        policy=THREE,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 4v8, ramp 1 to 4 pods, trend +50 %",
        fleet=replace(BASE, canary=4, ramp=(1, 1, 2, 3, 4), trend=0.5),
        policy=THREE,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 2v8, t3 pods", fleet=replace(BASE, pod_t_df=3.0), policy=THREE, at_most=0.065
    ),
    Scenario(
        name="A/A 2v8, one pod in ten 20 % slow",
        fleet=replace(BASE, slow_share=0.1),
        policy=THREE,
        at_most=0.06,
    ),
    Scenario(
        name="A/A 1v3, one pod in ten 20 % slow",
        fleet=replace(BASE, canary=1, stable=3, slow_share=0.1),
        policy=THREE,
    ),
    Scenario(
        name="A/A 2v8, a canary pod 20 % slow: FAIL",
        fleet=replace(BASE, slow_pods=(0,)),
        policy=THREE,
    ),
    Scenario(
        name="A/A 2v8, a canary pod 20 % slow: names the pod",
        fleet=replace(BASE, slow_pods=(0,)),
        policy=THREE,
        counts="suspect",
    ),
    Scenario(
        name="A/A 2v8 errors, pod log-rate sd .5 and bursts: FAIL",
        fleet=CLUSTERED,
        policy=ERRORS,
        at_most=0.08,
    ),
    Scenario(
        name="A/A 2v8 errors, pod log-rate sd .5 and bursts: gross",
        fleet=CLUSTERED,
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
        policy=QUALITY,
        plan=ONE_LOOK,
        at_most=0.04,
    ),
    Scenario(
        name="+10 % TTFT 2v8, 3 gates",
        fleet=replace(STEADY, slowdown={"ttft": 1.1}),
        policy=THREE,
        at_least=0.85,
    ),
    Scenario(
        name="+10 % TTFT 4v16, 3 gates",
        fleet=replace(STEADY, canary=4, stable=16, slowdown={"ttft": 1.1}),
        policy=THREE,
        at_least=0.95,
    ),
    Scenario(
        name="+10 % TTFT 2v8, 3 gates, drift 5 %",
        fleet=replace(BASE, slowdown={"ttft": 1.1}),
        policy=THREE,
    ),
    Scenario(
        name="+10 % TTFT 4v16, 3 gates, drift 5 %",
        fleet=replace(BASE, canary=4, stable=16, slowdown={"ttft": 1.1}),
        policy=THREE,
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
        policy=THREE,
    ),
    Scenario(
        name="3 times slower 1v3: FAIL at the first look",
        fleet=replace(BASE, canary=1, stable=3, slowdown={"ttft": 3.0}),
        policy=THREE,
        counts="first",
        at_least=0.95,
    ),
    Scenario(
        name="2 times slower 1v3: FAIL at the first look",
        fleet=replace(BASE, canary=1, stable=3, slowdown={"ttft": 2.0}),
        policy=THREE,
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
        name="+3 % on all 2v8: FAIL",
        fleet=replace(STEADY, slowdown=ALL_SLOWER),
        policy=THREE,
        at_most=0.22,
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
        policy=THREE,
        at_most=0.063,
    ),
    Scenario(
        name="+10 % of tokens of 15 ms, 2v8: FAIL",
        fleet=replace(STEADY, metrics={"ttft": TTFT, "tpot": QUICK}, slowdown={"tpot": 1.1}),
        policy=THREE,
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
        policy=THREE,
        at_most=0.05,
    ),
    Scenario(
        name="3 times slower, 1 canary pod v 1 of 4 stable as control: FAIL at the first look",
        fleet=replace(BASE, canary=1, stable=4, control=1, slowdown={"ttft": 3.0}),
        policy=THREE,
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
        policy=QUALITY,
        counts="pass",
    ),
    Scenario(name="A/A 2v8, 3 gates: PASS", fleet=STEADY, policy=THREE, counts="pass"),
    Scenario(
        name="A/A 4v16, 3 gates: PASS",
        fleet=replace(STEADY, canary=4, stable=16),
        policy=THREE,
        counts="pass",
    ),
    Scenario(
        name="quality -8 points, 300 prompts of 5 answers: FAIL",
        fleet=replace(BASE, prompts=300, quality_loss=0.08, metrics={}),
        policy=QUALITY,
        at_least=0.95,
    ),
    Scenario(
        name="A/A 2v8, steady pods, all parts: 8 gates, 6 resumes, retry",
        fleet=replace(STEADY, metrics=EIGHT, prompts=100),
        policy=FAMILY,
        plan=EVERYTHING,
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 4v16, all parts: 8 gates, 6 resumes, retry",
        fleet=replace(BASE, canary=4, stable=16, metrics=EIGHT, prompts=100),
        policy=FAMILY,
        plan=EVERYTHING,
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 2v8, family of 8",
        fleet=replace(BASE, metrics=EIGHT, prompts=100),
        policy=FAMILY,
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 2v8, t3 pods of sd 5 %, all parts",
        fleet=replace(HEAVY, metrics=EIGHT, prompts=100),
        policy=FAMILY,
        plan=EVERYTHING,
        stop=False,
        at_most=0.065,
    ),
    Scenario(
        name="A/A 2v8, 1 gate, 5 looks and 15 more",
        fleet=BASE,
        policy=ONE,
        plan=Plan(resumes=15),
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 2v8, 1 gate, 20 looks and 15 more",
        fleet=BASE,
        policy=ONE,
        plan=Plan(looks=20, resumes=15),
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 4v3, ramp, trend +50 %, warm-up left out",
        fleet=replace(RAMP, stable=3, warm_up=1.0),
        policy=THREE,
        plan=Plan(looks=4),
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 4v8, ramp, trend +50 %, warm-up left out",
        fleet=replace(RAMP, warm_up=1.0),
        policy=THREE,
        plan=Plan(looks=4),
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 4v16, ramp, trend +50 %, warm-up left out",
        fleet=replace(RAMP, stable=16, warm_up=1.0),
        policy=THREE,
        plan=Plan(looks=4),
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A 2v8, steady pods, one in ten 20 % slow",
        fleet=replace(STEADY, slow_share=0.1),
        policy=THREE,
        at_most=0.06,
    ),
    Scenario(
        name="A/A 2v8, steady pods, exactly one of all 20 % slow",
        fleet=replace(STEADY, one_slow=True),
        policy=THREE,
    ),
    Scenario(
        name="A/A 2v8 errors, pod log-rate sd .5 and bursts: one test at .05",
        fleet=CLUSTERED,
        policy=ERRORS,
        plan=ONE_LOOK,
        counts="harm at .05",
        at_most=0.08,
    ),
    Scenario(
        name="A/A 1v3 errors, pod log-rate sd .5 and bursts: one test at .05",
        fleet=replace(CLUSTERED, canary=1, stable=3),
        policy=ERRORS,
        plan=ONE_LOOK,
        counts="harm at .05",
        at_most=0.08,
    ),
    Scenario(
        name="A/A 1v3 errors, pod log-rate sd .5 and bursts: gross",
        fleet=replace(CLUSTERED, canary=1, stable=3),
        policy=ONLY_GROSS,
        counts="gross",
        at_most=0.02,
    ),
    Scenario(
        name="A/A 4v8 errors, ramp, everyone's errors rise fourfold: one test at .05",
        fleet=replace(RAMP, error_trend=3.0, metrics={}),
        policy=ERRORS,
        plan=ONE_LOOK,
        counts="harm at .05",
        at_most=0.06,
    ),
    Scenario(
        name="A/A 4v8 errors, ramp, everyone's errors rise fourfold: gross",
        fleet=replace(RAMP, error_trend=3.0, metrics={}),
        policy=ONLY_GROSS,
        counts="gross",
        at_most=0.005,
    ),
    Scenario(
        name="errors tripled 2v8, 60 windows of 20 requests: FAIL",
        fleet=replace(BASE, error_ratio=3.0, requests=20.0, windows=60, metrics={}),
        policy=ERRORS,
        at_least=0.90,
    ),
    Scenario(
        name="A/A 1v3: FAIL at the first look",
        fleet=replace(BASE, canary=1, stable=3),
        policy=THREE,
        counts="first",
        at_most=0.01,
    ),
    Scenario(
        name="+10 % TTFT 2v8, 1 gate",
        fleet=replace(STEADY, slowdown={"ttft": 1.1}),
        policy=ONE,
        at_least=0.90,
    ),
    Scenario(
        name="+10 % TTFT 4v16, pods of sd 3 %, 1 gate",
        fleet=replace(STEADY, pod_sd=0.03, canary=4, stable=16, slowdown={"ttft": 1.1}),
        policy=ONE,
        at_least=0.95,
    ),
    Scenario(
        name="+15 % of the slowest tenth 2v8, 12k requests, 1 gate",
        fleet=replace(STEADY, tail={"ttft": 1.15}),
        policy=TAIL,
        at_least=0.90,
    ),
    Scenario(
        name="+10 % of tokens of 15 ms, 2v8, 1 gate: FAIL",
        fleet=replace(STEADY, metrics={"tpot": QUICK}, slowdown={"tpot": 1.1}),
        policy=TOKENS,
        at_least=0.90,
    ),
    Scenario(
        name="+10 % of tokens of 15 ms, 2v8: p50 and p99 from buckets stay",
        fleet=replace(STEADY, time_sd=0.0, metrics={"tpot": QUICK}, slowdown={"tpot": 1.1}),
        policy=TOKENS,
        plan=ONE_LOOK,
        counts="quantiles stay",
        at_least=0.95,
    ),
    Scenario(
        name="+3 % on all 2v8, family of 8: FAIL",
        fleet=replace(STEADY, metrics=EIGHT, prompts=100, slowdown=dict.fromkeys(EIGHT, 1.03)),
        policy=FAMILY,
    ),
    Scenario(
        name="at the margin (+10 %) 2v8, steady pods, 6 resumes: false PASS",
        fleet=replace(STEADY, slowdown={"ttft": 1.1}),
        policy=ONE,
        plan=RESUMED,
        counts="pass",
        at_most=0.05,
    ),
    Scenario(
        name="at the margin (+10 %) 1v3, history, 6 resumes: false PASS",
        fleet=replace(STEADY, canary=1, stable=3, slowdown={"ttft": 1.1}),
        policy=replace(ONE, priors=WITH_HISTORY.priors),
        plan=RESUMED,
        counts="pass",
        at_most=0.05,
    ),
    Scenario(
        name="at the margin (+.5 points of errors) 2v8, 6 resumes: false PASS",
        fleet=replace(BASE, error_ratio=2.0, metrics={}),
        policy=ERRORS,
        plan=RESUMED,
        counts="pass",
        at_most=0.05,
    ),
    Scenario(
        name="at the margin (-5 points of quality), 300 prompts of 5, 6 resumes: false PASS",
        fleet=replace(BASE, prompts=300, quality_loss=AT_MARGIN, metrics={}),
        policy=QUALITY,
        plan=RESUMED,
        counts="pass",
        at_most=0.05,
    ),
    Scenario(
        name="A/A quality, 200 prompts of 5, better at some: one test at .05",
        fleet=replace(BASE, prompts=200, metrics={}),
        policy=QUALITY,
        plan=ONE_LOOK,
        counts="harm at .05",
        at_most=0.06,
    ),
    Scenario(
        name="A/A quality, 200 prompts of 5, versions alike: one test at .05",
        fleet=replace(BASE, prompts=200, quality_sd=0.0, metrics={}),
        policy=QUALITY,
        plan=ONE_LOOK,
        counts="harm at .05",
        at_most=0.06,
    ),
    Scenario(
        name="A/A quality, 200 prompts of 5, versions alike: shown within 5 points at .05",
        fleet=replace(BASE, prompts=200, quality_sd=0.0, metrics={}),
        policy=QUALITY,
        plan=ONE_LOOK,
        counts="pass at .05",
        at_least=0.88,
    ),
    Scenario(
        name="A/A 1,000 sticky heavy-tailed users at 10 %, 6 resumes, retry",
        fleet=StickyUsers(),
        policy=USERS,
        plan=EVERYTHING,
        stop=False,
        at_most=0.05,
    ),
    Scenario(
        name="A/A second alias of one adapter at 5 %, 6 resumes, retry",
        fleet=CachedAdapters(),
        policy=ONE,
        plan=EVERYTHING,
        stop=False,
        at_most=0.05,
    ),
)
