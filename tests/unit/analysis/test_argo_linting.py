from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from inference_analysis.argo import lint_loads, templates
from inference_analysis.argo.linting import mistakes
from inference_analysis.argo.settings import analysis_document
from inference_analysis.command import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Object = dict[str, Any]
VALUES = {"prometheus": {"url": "http://prometheus:9090"}}
WANTED = templates.Wanted(name="canary-analysis", service="http://analysis:8080")


def template(**values: Any) -> Object:
    return templates.job_template(WANTED, VALUES | values, background=False)


def web(**values: Any) -> Object:
    settings = VALUES | values
    return templates.web_template(WANTED, settings, analysis_document(settings), background=False)


def rollout(*weights: int, replicas: int = 4, **canary: Any) -> Object:
    steps: list[Object] = []
    for weight in weights:
        steps += [{"setWeight": weight}, {"analysis": templates.step(WANTED, "job")}]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "chat"},
        "spec": {"replicas": replicas, "strategy": {"canary": {"steps": steps} | canary}},
    }


def even() -> Object:
    """Four canary and four stable pods, each with the same part of the requests."""
    made = rollout(50)
    steps = made["spec"]["strategy"]["canary"]["steps"]
    steps.append({"setCanaryScale": {"replicas": 4}})
    steps.insert(0, steps.pop())
    return made


def job_of(found: Object) -> Object:
    spec: Object = found["spec"]["metrics"][0]["provider"]["job"]["spec"]
    return spec


def texts(*objects: Object, **options: Any) -> list[str]:
    return [item.text for item in mistakes(objects, **options)]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("provider", ["job", "web"])
@pytest.mark.parametrize("ledger", ["live", "shadow"])
def test_what_template_writes_has_no_mistake(background: bool, provider: str, ledger: str) -> None:
    values = VALUES | {"ledger": ledger}
    made = (
        templates.web_template(WANTED, values, analysis_document(values), background=background)
        if provider == "web"
        else templates.job_template(WANTED, values, background=background)
    )
    assert texts(made, argo=(1, 10)) == []


# Each change to a template or Rollout that is right, and what must be said of it.
BROKEN: list[Any] = [
    pytest.param(lambda t, _: t["spec"]["metrics"][0].update(count=1), "count is 1", id="count"),
    pytest.param(
        lambda t, _: t["spec"]["metrics"][0].update(count=1, failureLimit=1),
        "argo-rollouts#4393",
        id="a-failing-job-would-be-successful",
    ),
    pytest.param(
        lambda t, _: t["spec"]["metrics"][0].update(inconclusiveLimit=3),
        "inconclusiveLimit is 3",
        id="inconclusive-limit",
    ),
    pytest.param(
        lambda t, _: t["spec"]["metrics"].append({"name": "p99", "provider": {"prometheus": {}}}),
        "stands beside p99",
        id="sibling-metric",
    ),
    pytest.param(
        lambda t, _: t["spec"]["metrics"][0].update(name="a" * 25), "24 characters", id="name"
    ),
    pytest.param(
        lambda t, _: job_of(t)["template"]["spec"].update(restartPolicy="OnFailure"),
        "restartPolicy: Never",
        id="restarts",
    ),
    pytest.param(
        lambda t, _: job_of(t).pop("podFailurePolicy"), "DisruptionTarget", id="drained-nodes"
    ),
    pytest.param(lambda t, _: t["spec"].update(args=[]), "spec.args lacks", id="no-args"),
    pytest.param(
        lambda t, _: t["spec"].update(dryRun=[{"metricName": "analysis"}]),
        "ledger: shadow",
        id="dry-run-on-the-live-ledger",
    ),
    pytest.param(
        lambda _, r: r["spec"]["strategy"]["canary"]["steps"][2]["analysis"].update(args=[]),
        "arg canary-hash is missing",
        id="empty-hashes",
    ),
    pytest.param(
        lambda _, r: r["spec"]["strategy"]["canary"]["steps"][2]["analysis"]["args"][1].update(
            valueFrom={"podTemplateHashValue": "Latest"}
        ),
        "arg stable-hash is 'Latest'",
        id="equal-hashes",
    ),
    pytest.param(
        lambda _, r: r["spec"]["strategy"]["canary"]["steps"][2]["analysis"]["args"].append(
            {"name": "canary-hash", "value": "x"}
        ),
        "given twice",
        id="doubled-hash",
    ),
    pytest.param(
        lambda _, r: r["spec"]["strategy"]["canary"]["steps"][2]["analysis"]["templates"].append(
            {"templateName": "smoke"}
        ),
        "in one AnalysisRun",
        id="sibling-template",
    ),
    pytest.param(
        lambda _, r: r["spec"]["strategy"]["canary"].update(analysis=templates.step(WANTED, "job")),
        "in steps and in the background",
        id="two-plans-on-one-ledger",
    ),
]


@pytest.mark.parametrize(("change", "said"), BROKEN)
def test_each_trap_is_found(change: Callable[[Object, Object], None], said: str) -> None:
    made, used = template(), even()
    assert texts(made, used) == []
    made, used = copy.deepcopy(made), copy.deepcopy(used)
    change(made, used)
    found = texts(made, used)
    assert any(said in text for text in found), found


def test_settings_that_cannot_be_used_are_found_in_the_template() -> None:
    assert texts(template(look={"after": "soon"}))[0].startswith("ANALYSIS_CONFIG: look.after")


def test_a_job_needs_argo_that_does_not_promote_what_it_ended_itself() -> None:
    assert "1.10 or newer" in texts(template(), argo=(1, 9))[0]
    web = templates.web_template(WANTED, VALUES, analysis_document(VALUES), background=False)
    assert texts(web, argo=(1, 9)) == []


@pytest.mark.parametrize(
    ("made", "said"),
    [
        pytest.param(rollout(20), "", id="one-of-five-pods-at-20-per-cent"),
        # (10 / 1) / (90 / 4) = .44; one of five pods should get 20 %.
        pytest.param(rollout(10), "0.44 times a stable pod's requests", id="too-little"),
        pytest.param(rollout(10), "setWeight: 20 gives 1 canary and 4 stable", id="the-remedy"),
        # ceil(4 * .5) = 2 canary pods: (50 / 2) / (50 / 4) = 2.
        pytest.param(rollout(50), "setWeight: 33 gives 2 canary and 4 stable", id="too-much"),
        pytest.param(rollout(50, dynamicStableScale=True, replicas=8), "", id="dynamic-scale"),
        pytest.param(rollout(100), "stable has no requests", id="nothing-left"),
        pytest.param(rollout(0), "before any setWeight", id="nothing-yet"),
        pytest.param(rollout(34, replicas=2), "the evidence is weak", id="two-stable-pods"),
    ],
)
def test_loads_per_pod_are_compared_at_the_weight_of_the_step(made: Object, said: str) -> None:
    found = [text for text, _ in lint_loads.problems(made, 1, ttft=False)]
    assert any(said in text for text in found) if said else found == []


def test_a_scale_of_its_own_counts_instead_of_the_weight() -> None:
    made = rollout(20)
    made["spec"]["strategy"]["canary"]["steps"].insert(0, {"setCanaryScale": {"replicas": 2}})
    # Two canary and four stable pods: a third of the requests.
    found, unequal = [text for text, _ in lint_loads.problems(made, 2)]
    assert "setWeight: 33" in found
    assert "2 canary and 4 stable pods" in unequal


UNEQUAL = "TTFT of an identical version looks"
TAIL = {"metric": "e2e", "statistic": "mean"}


@pytest.mark.parametrize(
    ("values", "made", "said"),
    [
        pytest.param({}, rollout(20), f"{UNEQUAL} worse", id="one-and-four"),
        pytest.param({}, rollout(20), "{replicas: 4}, setWeight: 50)", id="the-remedy"),
        pytest.param(
            {}, rollout(75, replicas=8, dynamicStableScale=True), f"{UNEQUAL} better", id="larger"
        ),
        pytest.param(
            {}, rollout(75, replicas=8, dynamicStableScale=True), "(setWeight: 50)", id="dynamic"
        ),
        pytest.param({}, even(), "", id="four-and-four"),
        pytest.param({"policy": {"gates": [TAIL]}}, rollout(20), "", id="ttft-does-not-decide"),
        pytest.param({"arms": {"by": "adapters"}}, rollout(20), "", id="adapters-share-pods"),
    ],
)
@pytest.mark.parametrize("provider", ["job", "web"])
def test_pools_of_different_size_are_told_where_ttft_decides(
    values: Object, made: Object, said: str, provider: str
) -> None:
    used = web(**values) if provider == "web" else template(**values)
    found = [text for text in texts(used, made) if UNEQUAL in text]
    assert (said in found[0]) if said else not found


@pytest.mark.parametrize(
    ("values", "used", "said"),
    [
        pytest.param({}, rollout(20, 40), "", id="two-steps"),
        pytest.param({}, rollout(20, 40, 60), "plans 3 looks at adapters", id="three-steps"),
        pytest.param(
            {"background": {"looks": 2}},
            rollout(20, analysis=templates.step(WANTED, "job")),
            "plans 3 looks at adapters",
            id="in-the-background",
        ),
        pytest.param({"arms": {"by": "pods"}}, rollout(20, 40, 60), "", id="pods"),
    ],
)
def test_more_looks_at_adapters_than_windows_can_bear_are_told(
    values: Object, used: Object, said: str
) -> None:
    found = [
        t for t in texts(template(**{"arms": {"by": "adapters"}} | values), used) if "plans" in t
    ]
    assert (said in found[0]) if said else not found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"count": 10}, "it would end before its look", id="ends-too-early"),
        pytest.param({"interval": "10s"}, "end 200 s after the first", id="asks-too-often"),
        pytest.param({"inconclusiveLimit": 1}, "inconclusiveLimit is 1", id="a-pause-is-nothing"),
        # retryFor and maxWait are 2 minutes and 2 hours: 732 Errors, and Argo's own four.
        pytest.param({"consecutiveErrorLimit": None}, "or set 736", id="cannot-wait"),
        pytest.param({"consecutiveErrorLimit": 16}, "can wait 120 s", id="cannot-wait-as-long"),
    ],
)
def test_a_web_metric_that_ends_or_gives_up_too_early_is_found(change: Object, said: str) -> None:
    made = web(maxWait="2h")
    assert texts(made) == []
    made["spec"]["metrics"][0] |= change
    made["spec"]["metrics"][0] = {
        key: value for key, value in made["spec"]["metrics"][0].items() if value is not None
    }
    (found,) = texts(made)
    assert said in found


@pytest.mark.parametrize(
    ("objects", "code", "said"),
    [
        pytest.param([template(), even()], 0, "no mistake in 2 objects", id="nothing"),
        pytest.param([template(), rollout(10)], 0, "remark: Rollout chat, step 1", id="remark"),
        pytest.param([template(), rollout(100)], 1, "mistake: Rollout chat, step 1", id="mistake"),
    ],
)
def test_the_exit_code_tells_mistakes_from_remarks(
    tmp_path: Path, objects: list[Object], code: int, said: str
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(templates.yaml_of(*objects))
    result = CliRunner().invoke(app, ["lint", str(file)])
    assert (result.exit_code, said in result.stdout) == (code, True), result.stdout


@pytest.mark.parametrize("text", ["a: [", None])
def test_a_file_that_cannot_be_read_has_a_code_of_its_own(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "all.yaml"
    if text is not None:
        file.write_text(text)
    result = CliRunner().invoke(app, ["lint", str(file)])
    assert result.exit_code == 2
    assert str(file) in result.stderr
