"""Sources beside the watch: a file of endpoints, pods on their way out, and silence."""

from pathlib import Path

import pytest

from inference_common.errors import KubeError
from inference_picker.cluster import endpoints_of
from inference_picker.endpoint_file import FileSource, read_endpoints
from inference_picker.errors import ConfigError
from inference_picker.pulse import Pulse
from inference_picker.splits import Target

POOL = {"spec": {"selector": {"app": "m"}, "targetPortNumber": 8000}}

FILE = """
endpoints:
- address: 10.0.0.1:8000
  name: gpu-1
  version: v1
  labels: {gpu: h100}
- address: "[fd00::1]:8000"
models:
- model: chat
  targets: [{name: chat-v1, weight: 9}, {name: chat-v2}]
- targets: [{name: base}]
objectives: {batch: -1}
"""


def test_terminating_pods_that_still_answer_are_marked() -> None:
    def pod(name: str, **metadata: str) -> dict[str, object]:
        return {
            "metadata": {"name": name, "labels": {"app": "m", "gpu": "h100"}, **metadata},
            "status": {
                "podIP": f"10.0.0.{ord(name)}",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }

    found = endpoints_of(POOL, [pod("a"), pod("b", deletionTimestamp="2026-11-21T10:00:00Z")], {})

    assert [(each.pod, each.terminating) for each in found] == [("a", False), ("b", True)]


def test_a_file_describes_endpoints_splits_and_priorities(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text(FILE)

    pool = read_endpoints(path)

    first, second = pool.endpoints
    assert (first.address, first.pod, first.version) == ("10.0.0.1:8000", "gpu-1", "v1")
    assert first.labels == {"gpu": "h100"}
    assert (second.address, second.pod) == ("[fd00::1]:8000", "[fd00::1]:8000")
    assert pool.splits["chat"].targets == (
        Target(name="chat-v1", weight=9),
        Target(name="chat-v2", weight=1),
    )
    assert pool.other is not None
    assert pool.objectives == {"batch": -1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("endpoints: [", "can't be read", id="not-yaml"),
        pytest.param("{}", "endpoints: Field required", id="no-endpoints"),
        pytest.param(
            "endpoints: [{address: a:1, verison: x}]", "endpoints.0.verison", id="unknown-field"
        ),
        pytest.param("endpoints: [{address: host}]", "expected HOST:PORT", id="no-port"),
        pytest.param(
            "endpoints: [{address: a:1}, {address: a:1}]", "a:1 is listed twice", id="twice"
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        read_endpoints(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "endpoints.yaml"
    path.write_text("endpoints: [{address: a:1}]")
    source = FileSource(path, clock=lambda: now)
    source.list_models("a:1", frozenset({"base"}))
    assert source.is_ready
    assert source.snapshot() is source.snapshot()

    path.write_text("endpoints: [{address: a:1}, {address: b:1}]")
    source.look()
    assert [(each.address, each.models) for each in source.snapshot().endpoints] == [
        ("a:1", {"base"}),
        ("b:1", None),
    ]
    assert (source.staleness_s(), source.detail()) == (None, f"2 endpoints in {path}")

    path.write_text("endpoints: [{address: broken}]")
    now = 7.0
    source.look()
    assert len(source.snapshot().endpoints) == 2
    assert source.staleness_s() == 7.0
    assert "keeping the last good endpoints" in source.detail()

    path.unlink()
    source.look()
    path.write_text("endpoints: [{address: c:1}]")
    source.look()
    assert [each.address for each in source.snapshot().endpoints] == ["c:1"]
    assert source.staleness_s() is None


async def test_silence_is_measured_from_the_last_answer() -> None:
    now = 0.0
    away = False

    async def ask() -> None:
        if away:
            raise KubeError(503, "ServiceUnavailable", "away")

    pulse = Pulse(ask, clock=lambda: now)
    silences = []
    for away, now in ((False, 0.0), (True, 5.0), (True, 60.0), (False, 65.0)):  # noqa: B007
        await pulse.beat()
        silences.append(pulse.silent_s)

    assert silences == [None, 5.0, 60.0, None]
