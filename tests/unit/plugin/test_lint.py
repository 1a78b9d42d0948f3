"""Each rule of lint finds its fault on its line, and nothing where there is none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from inference_plugin.command import app
from inference_plugin.lint.documents import ManifestError, read_documents
from inference_plugin.lint.findings import Finding, Severity
from inference_plugin.lint.linter import Assumptions, lint
from support.repository import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable

Object = dict[str, Any]
Objects = list[Object]
POOLS, LORA, SERVICES = "base-model-canary.yaml", "lora-canary.yaml", "services-canary.yaml"


def load(name: str) -> Objects:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def find(objects: Objects, kind: str, name: str | None = None) -> Object:
    return next(
        each
        for each in objects
        if each["kind"] == kind and (name is None or each["metadata"]["name"] == name)
    )


def check(objects: Objects, **assumptions: float) -> list[Finding]:
    text = yaml.safe_dump_all(objects)
    return lint(read_documents(text, "f.yaml", "default"), Assumptions(**assumptions))


def serious(findings: list[Finding]) -> list[tuple[Severity, str]]:
    return [(each.severity, each.rule) for each in findings if each.severity != Severity.ADVICE]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_clean_even_when_warnings_count(path: Path) -> None:
    done = CliRunner().invoke(app, ["lint", "--strict", str(path)])
    assert done.exit_code == 0, done.output


def canary(objects: Objects) -> Object:
    found: Object = find(objects, "Rollout")["spec"]["strategy"]["canary"]
    return found


def config(objects: Objects) -> Object:
    found: Object = canary(objects)["trafficRouting"]["plugins"]["inference-rollouts/router"]
    return found


def rename_route(objects: Objects) -> None:
    config(objects)["httpRoute"] = "mymodle"


def rename_pool(objects: Objects) -> None:
    config(objects)["inferencePools"][1] = "mymodel-c"


def drop_ref(objects: Objects) -> None:
    del find(objects, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][1]


def drop_parents(objects: Objects) -> None:
    del find(objects, "HTTPRoute")["spec"]["parentRefs"]


def rename_gateway(objects: Objects) -> None:
    find(objects, "HTTPRoute")["spec"]["parentRefs"][0]["name"] = "gatway"


def rename_picker(objects: Objects) -> None:
    find(objects, "InferencePool", "mymodel-a")["spec"]["endpointPickerRef"]["name"] = "other"


def unknown_key(objects: Objects) -> None:
    config(objects)["httpRoutez"] = []


def blue_green(objects: Objects) -> None:
    find(objects, "Rollout")["spec"]["strategy"] = {"blueGreen": {"activeService": "x"}}


def other_labels(objects: Objects) -> None:
    find(objects, "InferencePool")["spec"]["selector"]["matchLabels"] = {"app": "else"}


def hash_in_selector(objects: Objects) -> None:
    labels = find(objects, "InferencePool")["spec"]["selector"]["matchLabels"]
    labels["rollouts-pod-template-hash"] = "abc"


def stranger_with_our_label(objects: Objects) -> None:
    template = find(objects, "Deployment", "mymodel-a-picker")["spec"]["template"]
    template["metadata"]["labels"]["app"] = "mymodel"


def static_pools(objects: Objects) -> None:
    settings = config(objects)
    stable, other = settings.pop("inferencePools")
    settings["static"] = {"stable": stable, "canary": other}


def no_steps(objects: Objects) -> None:
    del canary(objects)["steps"]


def no_pause(objects: Objects) -> None:
    canary(objects)["steps"] = [{"setWeight": 10}, {"setWeight": 100}, {"pause": {}}]


def steps_above_maximum(objects: Objects) -> None:
    canary(objects)["steps"][0]["setWeight"] = 101


def header_route(objects: Objects) -> None:
    canary(objects)["steps"].insert(0, {"setHeaderRoute": {"name": "beta"}})


def known_header_route(objects: Objects) -> None:
    header_route(objects)
    canary(objects)["trafficRouting"]["managedRoutes"] = [{"name": "beta"}]


def dynamic(objects: Objects) -> None:
    found = canary(objects)
    del found["scaleDownDelaySeconds"]
    found["dynamicStableScale"] = True


def dynamic_falling(objects: Objects) -> None:
    dynamic(objects)
    canary(objects)["steps"] += [{"setWeight": 0}]


def short_delay(objects: Objects) -> None:
    canary(objects)["scaleDownDelaySeconds"] = 119


def short_abort_delay(objects: Objects) -> None:
    canary(objects)["abortScaleDownDelaySeconds"] = 1


def endless_abort_delay(objects: Objects) -> None:
    canary(objects)["abortScaleDownDelaySeconds"] = 0


def short_deadline(objects: Objects) -> None:
    find(objects, "Rollout")["spec"]["progressDeadlineSeconds"] = 599


def no_probe(objects: Objects) -> None:
    template = find(objects, "Rollout")["spec"]["template"]
    del template["spec"]["containers"][0]["readinessProbe"]


def copy_of_rollout(objects: Objects) -> None:
    second = yaml.safe_load(yaml.safe_dump(find(objects, "Rollout")))
    second["metadata"]["name"] = "second"
    objects.append(second)


def no_destination(objects: Objects) -> None:
    del find(objects, "Rollout")["spec"]["template"]["metadata"]["annotations"]


def fail_open(objects: Objects) -> None:
    find(objects, "InferencePool")["spec"]["extensionRef"]["failureMode"] = "FailOpen"


def shared_pool(objects: Objects) -> None:
    settings = config(objects)
    settings |= {"sharedPool": settings.pop("inferencePools")[0]}
    del settings["httpRoute"]


def open_shared_pool(objects: Objects) -> None:
    shared_pool(objects)
    spec = find(objects, "InferencePool", "mymodel-a")["spec"]
    spec["endpointPickerRef"]["failureMode"] = "FailOpen"


def missing_shared_pool(objects: Objects) -> None:
    shared_pool(objects)
    config(objects)["sharedPool"] = "mymodel"


def rename_model(objects: Objects) -> None:
    find(objects, "InferenceModel")["metadata"]["name"] = "travel"


def pool_of_another_group(objects: Objects) -> None:
    find(objects, "InferenceModel")["spec"]["poolRef"]["group"] = "inference.networking.k8s.io"


def rename_service(objects: Objects) -> None:
    find(objects, "Service", "mymodel-canary")["metadata"]["name"] = "mymodel-canari"


E, W = Severity.ERROR, Severity.WARNING


@pytest.mark.parametrize(
    ("example", "change", "expected"),
    [
        pytest.param(POOLS, rename_route, [(E, "reference")], id="no such route"),
        pytest.param(
            POOLS, rename_pool, [(E, "reference"), (E, "backend-refs")], id="no such pool"
        ),
        pytest.param(POOLS, drop_ref, [(E, "backend-refs")], id="route lacks a managed ref"),
        pytest.param(POOLS, drop_parents, [(E, "parent")], id="route without a gateway"),
        pytest.param(POOLS, rename_gateway, [(E, "reference")], id="no such gateway"),
        pytest.param(POOLS, rename_picker, [(E, "reference")], id="no such picker"),
        pytest.param(POOLS, unknown_key, [(E, "config")], id="unknown key"),
        pytest.param(POOLS, blue_green, [(E, "blue-green")], id="blueGreen"),
        pytest.param(POOLS, other_labels, [(E, "pool-selector")], id="selector of other pods"),
        pytest.param(POOLS, hash_in_selector, [(W, "pool-hash")], id="hash in the manifest"),
        pytest.param(
            POOLS,
            stranger_with_our_label,
            [(W, "pool-selector"), (W, "pool-selector")],
            id="selector fits another workload",
        ),
        pytest.param(POOLS, static_pools, [(E, "pool-selector")], id="two pools, the same pods"),
        pytest.param(POOLS, no_steps, [(W, "no-pause")], id="no steps"),
        pytest.param(POOLS, no_pause, [(W, "no-pause")], id="a jump without a pause"),
        pytest.param(POOLS, steps_above_maximum, [(E, "step-weight")], id="weight above maximum"),
        pytest.param(POOLS, header_route, [(E, "managed-route")], id="unnamed header route"),
        pytest.param(POOLS, known_header_route, [], id="named header route"),
        pytest.param(POOLS, dynamic, [(W, "dynamic-stable-scale")], id="dynamicStableScale"),
        pytest.param(
            POOLS, dynamic_falling, [(E, "dynamic-stable-scale")], id="dynamic and falling"
        ),
        pytest.param(POOLS, short_delay, [(W, "scale-down-delay")], id="scale-down delay"),
        pytest.param(POOLS, short_abort_delay, [(W, "abort-scale-down-delay")], id="abort delay"),
        pytest.param(POOLS, endless_abort_delay, [], id="aborted canaries stay"),
        pytest.param(POOLS, short_deadline, [(W, "progress-deadline")], id="progress deadline"),
        pytest.param(POOLS, no_probe, [(W, "readiness-probe")], id="no readiness probe"),
        pytest.param(
            POOLS,
            copy_of_rollout,
            [(E, "two-rollouts"), *[(W, "pool-selector")] * 4],
            id="two Rollouts on one reference",
        ),
        pytest.param(POOLS, shared_pool, [], id="shares inside one pool"),
        pytest.param(POOLS, open_shared_pool, [(E, "fail-open")], id="FailOpen with shares"),
        pytest.param(POOLS, missing_shared_pool, [(E, "reference")], id="no such shared pool"),
        pytest.param(LORA, no_destination, [(E, "destination")], id="no destination"),
        pytest.param(LORA, fail_open, [(W, "fail-open")], id="FailOpen with adapters"),
        pytest.param(LORA, rename_model, [(E, "reference")], id="no such model"),
        pytest.param(LORA, pool_of_another_group, [(W, "reference")], id="pool's other group"),
        pytest.param(LORA, short_deadline, [], id="a release loads no model"),
        pytest.param(SERVICES, rename_service, [(E, "reference")], id="no such Service"),
    ],
)
def test_each_fault_is_found_and_nothing_else(
    example: str, change: Callable[[Objects], None], expected: list[tuple[Severity, str]]
) -> None:
    objects = load(example)
    assert serious(check(objects)) == []
    change(objects)
    assert sorted(serious(check(objects))) == sorted(expected)


def test_longer_answers_and_loads_move_the_limits() -> None:
    objects = load(POOLS)
    found = check(objects, longest_generation_s=181, model_load_s=3601)
    assert sorted(serious(found)) == [
        (W, "abort-scale-down-delay"),
        (W, "progress-deadline"),
        (W, "scale-down-delay"),
    ]


def test_a_name_that_may_be_on_the_cluster_is_a_warning() -> None:
    found = check([find(load(POOLS), "Rollout")])
    assert serious(found) == [(W, "reference")] * 3
    assert "give the HTTPRoute's manifest" in found[0].remedy or "InferencePool" in found[0].remedy


def test_the_selector_of_a_workload_ref_is_compared_with_its_template() -> None:
    objects = load(POOLS)
    spec = find(objects, "Rollout")["spec"]
    template = spec.pop("template")
    spec["workloadRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "workload"}
    objects.append(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "workload"},
            "spec": {"replicas": 0, "template": template},
        }
    )
    assert serious(check(objects)) == []
    template["metadata"]["labels"] = {"app": "else"}
    assert serious(check(objects)) == [(E, "pool-selector")] * 2


def test_one_claim_for_each_rule_of_a_model_rewrite_is_no_conflict() -> None:
    def rollout(name: str, model: str) -> Object:
        found = find(load(LORA), "Rollout")
        found["metadata"]["name"] = name
        plugins = found["spec"]["strategy"]["canary"]["trafficRouting"]["plugins"]
        plugins["inference-rollouts/router"] = {
            "inferenceModelRewrite": {"name": "names", "model": model}
        }
        return found

    rules = [
        {"matches": [{"model": {"value": name}}], "targets": [{"modelRewrite": name}]}
        for name in ("a", "b")
    ]
    rewrite = {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": "names"},
        "spec": {"rules": rules},
    }
    assert serious(check([rollout("one", "a"), rollout("two", "b"), rewrite])) == []
    again = check([rollout("one", "a"), rollout("two", "a"), rewrite])
    assert serious(again) == [(E, "two-rollouts")]


TEXT = """\
apiVersion: v1
kind: List
items:
  - apiVersion: argoproj.io/v1alpha1
    kind: Rollout
    metadata: {name: chat, namespace: llm}
    spec:
      replicas: 1
      strategy:
        canary:
          trafficRouting:
            plugins:
              inference-rollouts/router:
                httpRoute: chat
                holdSeconds: 900
                surprise: true
                inferencePools:
                  - one
"""


def test_each_fault_of_the_configuration_has_its_own_line() -> None:
    found = lint(read_documents(TEXT, "a.yaml", "default"), Assumptions())
    lines = {each.line: each.what for each in found if each.rule == "config"}
    assert {15, 16} < set(lines) <= {15, 16, 17, 18, 19}
    assert "holdSeconds" in lines[15]
    assert "unknown key" in lines[16]
    assert found[0].object == "Rollout llm/chat"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [", "a.yaml:1: not YAML", id="no YAML"),
        pytest.param("a: 1", "a.yaml:1: no Kubernetes object", id="no kind"),
        pytest.param("- 1", "a.yaml:1: no Kubernetes object", id="a list"),
        pytest.param(
            "---\napiVersion: v1\nkind: Pod\n", "a.yaml:2: Pod has no metadata.name", id="no name"
        ),
    ],
)
def test_a_file_that_holds_no_manifest_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_documents(text, "a.yaml", "default")


def test_exit_code_and_json_say_what_was_found(tmp_path: Path) -> None:
    objects = load(POOLS)
    short_delay(objects)
    warned = tmp_path / "warned.yaml"
    warned.write_text(yaml.safe_dump_all(objects))
    rename_route(objects)
    failed = tmp_path / "failed.yaml"
    failed.write_text(yaml.safe_dump_all(objects))
    runner = CliRunner()
    assert runner.invoke(app, ["lint", str(warned)]).exit_code == 0
    assert runner.invoke(app, ["lint", "--strict", str(warned)]).exit_code == 1
    done = runner.invoke(app, ["lint", "--json", str(failed)])
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    assert [each["rule"] for each in document["findings"]][:2] == ["reference", "scale-down-delay"]
    assert document["findings"][0]["file"] == str(failed)
    assert runner.invoke(app, ["lint", str(tmp_path / "absent.yaml")]).exit_code == 2


def test_a_folder_and_standard_input_are_read_as_one_set(tmp_path: Path) -> None:
    objects = load(POOLS)
    rollout = find(objects, "Rollout")
    objects.remove(rollout)
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(objects))
    (tmp_path / "kustomization.yaml").write_text("resources: [objects.yaml]\n")
    (tmp_path / "notes.txt").write_text("a: [")
    (tmp_path / "values.yaml").write_text("replicas: 2\n")
    runner = CliRunner()
    done = runner.invoke(app, ["lint", "--strict", str(tmp_path), "-"], yaml.safe_dump(rollout))
    assert done.exit_code == 0, done.output
    assert "12 objects checked" in done.output


def test_every_rule_is_in_the_documentation() -> None:
    source = Path(lint.__code__.co_filename).parent
    rules = {
        rule
        for file in source.glob("*.py")
        for rule in re.findall(r'Severity\.\S+,\n\s+"([a-z-]+)"', file.read_text())
    }
    page = (EXAMPLES.parents[1] / "docs" / "plugin-operations.md").read_text()
    assert len(rules) > 10
    assert [rule for rule in sorted(rules) if f"`{rule}`" not in page] == []
