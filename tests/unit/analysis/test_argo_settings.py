from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inference_analysis.argo.settings import analysis_document, merged, tree
from inference_analysis.durations import seconds
from inference_analysis.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL = {"prometheus": {"url": "https://prometheus:9090"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30.0), ("10m", 600.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("500s", 500.0)],
)
def test_durations_are_written_as_argo_writes_them(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("value", ["", "10", "ten", "5 m", "-1m", 600, None])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        seconds(value)


def test_the_teams_defaults_lie_below_the_templates_own_settings() -> None:
    team = tree("prometheus: {url: 'http://a:9090', tenant: llm}\npolicy: {mode: prove}", "team")
    own = tree("prometheus: {url: 'http://b:9090'}\nlook: {after: 5m}", "own")
    found = analysis_document(merged(team, own))
    assert (found.prometheus.url, found.prometheus.tenant) == ("http://b:9090", "llm")
    assert (found.policy.mode, found.look.after) == ("prove", 300.0)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        pytest.param({}, "prometheus: Field required", id="nowhere-to-ask"),
        pytest.param(MINIMAL | {"look": {"after": "soon"}}, "look.after", id="no-duration"),
        pytest.param(MINIMAL | {"looks": {}}, "looks: Extra inputs", id="unknown-section"),
        pytest.param(MINIMAL | {"onInconclusive": "wait"}, "onInconclusive", id="unknown-word"),
        pytest.param(
            {"prometheus": {"url": "http://me:secret@host"}}, "basicUser", id="credentials-in-url"
        ),
        pytest.param({"prometheus": {"url": "host:9090"}}, "expected http://HOST", id="no-url"),
        pytest.param(MINIMAL | {"policy": {"mode": "hope"}}, "policy.mode", id="policy"),
        pytest.param(
            MINIMAL | {"arms": {"pool": "chat"}},
            "arms: Value error, pool 'chat': only with by",
            id="pods-have-no-pool",
        ),
        pytest.param(
            MINIMAL | {"arms": {"by": "versions", "control": False}},
            "only with by: adapters, not versions",
            id="versions-have-no-adapter",
        ),
        pytest.param(
            MINIMAL | {"arms": {"by": "adapters", "control": False, "controlAdapter": "a"}},
            "controlAdapter 'a': given beside control: false",
            id="a-control-and-none",
        ),
    ],
)
def test_each_fault_of_the_settings_is_named_with_its_path(
    values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        analysis_document(values, "analysis.yaml")
    assert problem in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "word"])
def test_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="here: "):
        tree(text, "here")


def test_access_reads_the_mounted_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    values = {"prometheus": {"url": "https://p", "bearerTokenFile": str(tmp_path / "token")}}
    assert analysis_document(values).prometheus.access().bearer_token == "abc"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        pytest.param({"bearerTokenFile": "/none"}, "Is the Secret mounted", id="no-file"),
        pytest.param({"caFile": "/none"}, "Is the Secret mounted", id="no-ca"),
        pytest.param({"clientCertificate": "/none"}, "give both", id="no-key"),
    ],
)
def test_access_that_cannot_be_used_is_refused(fields: dict[str, str], problem: str) -> None:
    document = analysis_document({"prometheus": {"url": "https://p"} | fields})
    with pytest.raises(InputError, match=problem):
        document.prometheus.access()
