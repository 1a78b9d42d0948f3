from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from inference_analysis.argo import templates
from inference_analysis.argo.linting import settings_in
from inference_analysis.argo.settings import analysis_document, tree
from inference_analysis.command import app
from support.repository import MANIFESTS

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://prometheus:9090"


def written(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["template", *args])
    return result.exit_code, result.stdout, result.stderr


def objects(text: str) -> dict[str, dict[str, Any]]:
    return {obj["kind"]: obj for obj in yaml.safe_load_all(text) if obj}


def test_options_go_over_the_file_and_all_of_it_reaches_the_job(tmp_path: Path) -> None:
    file = tmp_path / "analysis.yaml"
    file.write_text("prometheus: {url: 'http://other', tenant: llm}\nlook: {after: 5m}\n")
    code, text, _ = written("--config", str(file), "--prometheus", URL, "--mode", "prove")
    assert code == 0
    found = objects(text)
    assert set(found) == {"AnalysisTemplate", "ServiceAccount", "Role", "RoleBinding"}
    settings = analysis_document(tree(settings_in(found["AnalysisTemplate"]), "it"))
    assert (settings.prometheus.url, settings.prometheus.tenant) == (URL, "llm")
    assert (settings.look.after, settings.policy.mode) == (300.0, "prove")


def test_what_to_put_into_the_rollout_is_said_above() -> None:
    _, text, _ = written("--prometheus", URL, "--background")
    comment = "\n".join(
        line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")
    )
    canary = yaml.safe_load(comment.partition("\n")[2])["spec"]["strategy"]["canary"]
    names = [item["templateName"] for item in canary["analysis"]["templates"]]
    assert names == [objects(text)["AnalysisTemplate"]["metadata"]["name"]]


def test_the_web_template_sends_no_credentials_and_asks_often_enough_to_reach_the_look() -> None:
    values = {"prometheus": {"url": URL}, "look": {"after": "100s", "every": "30s"}}
    made = templates.web_template(
        templates.Wanted(name="a", service="http://s:1/"),
        values,
        analysis_document(values),
        background=False,
    )
    (metric,) = made["spec"]["metrics"]
    assert metric["count"] == 5  # at 0, 30, 60, 90 and 120 s
    assert metric["consecutiveErrorLimit"] == 16  # Argo's 4, and retryFor / 10 s
    assert metric["provider"]["web"]["url"] == "http://s:1/v1/analysis"
    assert metric["provider"]["web"]["jsonBody"]["config"] == {"look": values["look"]}


def test_shadow_is_a_dry_run_and_a_secret_is_mounted() -> None:
    _, text, _ = written("--prometheus", URL, "--ledger", "shadow", "--secret", "access")
    spec = objects(text)["AnalysisTemplate"]["spec"]
    assert spec["dryRun"] == [{"metricName": "analysis"}]
    pod = spec["metrics"][0]["provider"]["job"]["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "access", "secret": {"secretName": "access"}}]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        pytest.param(("--prometheus", URL, "--after", "soon"), "look.after", id="no-duration"),
        pytest.param(("--config", "/none/analysis.yaml"), "No such file", id="no-file"),
    ],
)
def test_what_cannot_be_used_is_refused(args: tuple[str, ...], problem: str) -> None:
    code, text, error = written(*args)
    assert (code, text) == (2, "")
    assert problem in error


def test_without_an_address_the_teams_defaults_must_have_it() -> None:
    code, text, remark = written("--after", "5m")
    assert code == 0
    assert "ConfigMap inference-rollouts-analysis" in remark
    assert "prometheus" not in settings_in(objects(text)["AnalysisTemplate"])


@pytest.mark.parametrize("background", [False, True])
def test_the_manifests_are_what_the_command_writes(background: bool) -> None:
    folder = MANIFESTS / "analysis"
    shipped = {
        (obj["kind"], obj["metadata"]["name"]): obj
        for file in ("rbac.yaml", "templates.yaml")
        for obj in yaml.safe_load_all((folder / file).read_text())
    }
    _, text, _ = written("--after", "10m", *(["--background"] if background else []))
    for obj in yaml.safe_load_all(text):
        if obj:
            assert shipped[obj["kind"], obj["metadata"]["name"]] == obj
