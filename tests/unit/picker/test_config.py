"""Configuration files: upstream's load, mistakes are named, and users' plugins are found."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from inference_picker import config, plugins
from inference_picker.board import Board
from inference_picker.config import read_config
from inference_picker.ejection import EjectionRules
from inference_picker.errors import ConfigError
from inference_picker.estimates import Estimates
from inference_picker.pool import Endpoint, make_snapshot
from inference_picker.prefixes import PrefixIndex
from inference_picker.queueing import Band, QueueLimits
from inference_picker.ranking import Pods, SchedulingRequest
from inference_picker.saturation import Thresholds
from inference_picker.scheduler import Question

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"

# The chart's default (llm-d-router, charts/routerlib/templates/_config.yaml).
CHART = (
    HEAD
    + """
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: metrics-data-source
  parameters: {scheme: http, path: /metrics, insecureSkipVerify: true}
- type: core-metrics-extractor
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
"""
)

# The Gateway API Inference Extension's guide (site-src/guides/epp-configuration/config-text.md),
# under the group that it had then.
GUIDE = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
  parameters:
    hashBlockSize: 5
    maxPrefixBlocksToMatch: 256
    lruCapacityPerServer: 31250
- type: single-profile-handler
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
    weight: 50
  - pluginRef: max-score-picker
"""


class CheapFirst:
    """What the documentation shows as a user's scorer."""

    def __init__(self, *, label: str = "cost") -> None:
        self.label = label

    def score(self, request: SchedulingRequest, pods: Pods) -> list[float]:
        del request
        return [1.0 if each.labels.get(self.label) == "low" else 0.0 for each in pods.endpoints]


class Nothing:
    """No plugin of any kind."""


OWN = {
    name: EntryPoint(name=name, value=f"{__name__}:{attribute}", group="g")
    for name, attribute in (("cheap-first", "CheapFirst"), ("nothing", "Nothing"))
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    # Test modules are imported by path: an entry point needs this one by its name.
    import sys  # noqa: PLC0415
    from types import ModuleType  # noqa: PLC0415

    module = ModuleType(__name__)
    module.__dict__.update(CheapFirst=CheapFirst, Nothing=Nothing)
    monkeypatch.setitem(sys.modules, __name__, module)


def test_the_charts_default_loads_with_its_weights() -> None:
    found = read_config(CHART)

    weights = {each.name: each.weight for each in found.profile.scorers}
    assert weights == {
        "queue-scorer": 2,
        "kv-cache-utilization-scorer": 2,
        "prefix-cache-scorer": 3,
    }
    assert found.profile.picker.name == "max-score-picker"
    assert [note.partition(":")[0] for note in found.notes] == [
        "metrics-data-source",
        "core-metrics-extractor",
    ]


def test_the_guides_example_loads_and_says_what_has_no_effect() -> None:
    found = read_config(GUIDE)

    assert [(each.name, each.weight) for each in found.profile.scorers] == [
        ("prefix-cache-scorer", 50)
    ]
    assert found.index_capacity == 31_250
    assert "prefix-cache-scorer.hashBlockSize: no effect here; blocks are of 256 bytes" in (
        found.notes
    )


def test_without_profiles_every_plugin_is_used() -> None:
    found = read_config(HEAD + "plugins: [{type: queue-scorer}, {type: random-picker}]")

    assert [each.name for each in found.profile.scorers] == ["queue-scorer"]
    assert found.profile.picker.name == "random-picker"


def test_an_empty_configuration_is_the_default_policy() -> None:
    assert [each.name for each in read_config(HEAD).profile.scorers] == ["load-cost-scorer"]


def test_a_filter_alone_narrows_the_default_policy() -> None:
    found = read_config(
        HEAD + "plugins: [{type: by-label-selector, parameters: {matchLabels: {gpu: h100}}}]"
    )

    assert [each.name for each in found.profile.filters][-1] == "by-label-selector"
    assert [each.name for each in found.profile.scorers] == ["load-cost-scorer"]


def test_the_same_plugin_may_stand_twice_under_two_names() -> None:
    found = read_config(
        HEAD
        + """
plugins:
- {type: active-request-scorer, name: idle, parameters: {idleThreshold: 4}}
- {type: active-request-scorer, name: busy}
schedulingProfiles: [{name: p, plugins: [{pluginRef: idle}, {pluginRef: busy, weight: 0.5}]}]
"""
    )

    assert [(each.name, each.weight) for each in found.profile.scorers] == [
        ("idle", 1),
        ("busy", 0.5),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("", "an EndpointPickerConfig is expected, found None", id="empty"),
        pytest.param("[", "not YAML", id="not-yaml"),
        pytest.param("apiVersion: v1\nkind: x", "apiVersion is 'v1'; use llm-d.ai", id="version"),
        pytest.param("apiVersion: llm-d.ai/v1\nkind: Config", "kind: Input should be", id="kind"),
        pytest.param(
            HEAD + "plugins: [{type: queue-score}]",
            "plugins[0]: plugin type 'queue-score' is not known. Did you mean 'queue-scorer'?",
            id="plugin-type",
        ),
        pytest.param(
            HEAD + "plugins: [{type: zzz}]", "Known are active-request-scorer", id="nothing-near"
        ),
        pytest.param(
            HEAD + "schedulingProfile: []", "Did you mean 'schedulingProfiles'?", id="field"
        ),
        pytest.param(
            HEAD + "plugins: [{type: load-aware-scorer, parameters: {treshold: 3}}]",
            "parameters of load-aware-scorer",
            id="parameter",
        ),
        pytest.param(
            HEAD + "plugins: [{type: max-score-picker, parameters: {ties: odd}}]",
            "ties is 'odd'",
            id="parameter-value",
        ),
        pytest.param(
            HEAD + "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue}]}]",
            "schedulingProfiles[0].plugins[0]: plugin 'queue' is not known",
            id="reference",
        ),
        pytest.param(
            HEAD + "schedulingProfiles: [{name: prefill}, {name: decode}]",
            "2 profiles (prefill, decode) are for prefill and decode",
            id="profiles",
        ),
        pytest.param(
            HEAD + "plugins: [{type: queue-scorer}, {type: queue-scorer}]",
            "the name 'queue-scorer' is taken",
            id="name-twice",
        ),
        pytest.param(
            HEAD + "plugins: [{type: random-picker}, {type: round-robin-picker}]",
            "random-picker is the profile's picker already",
            id="two-pickers",
        ),
        pytest.param(
            HEAD + "featureGates: [flowcontrol]", "Did you mean 'flowControl'?", id="gate"
        ),
        pytest.param(
            HEAD + "featureGates: [flowControl]\nflowControl: {defaultRequestTTL: soon}",
            "'soon' is no duration",
            id="duration",
        ),
        pytest.param(
            HEAD
            + "featureGates: [flowControl]\n"
            + "flowControl: {priorityBands: [{priority: 1, orderingPolicyRef: edf-ordering}]}",
            "flowControl.priorityBands[0].orderingPolicyRef: policy 'edf-ordering' is not known",
            id="ordering",
        ),
        pytest.param(
            HEAD
            + "featureGates: [flowControl]\n"
            + "flowControl: {priorityBands: [{priority: 1}, {priority: 1}]}",
            "flowControl.priorityBands[1]: priority 1 has a band already",
            id="band-twice",
        ),
        pytest.param(
            HEAD + "flowControl: {maxRequests: many}", "'many' is no quantity", id="quantity"
        ),
        pytest.param(
            HEAD + "plugins: [{type: nothing}]", "has none of the methods", id="own-without-method"
        ),
        pytest.param(
            HEAD + "plugins: [{type: outlier-ejection, parameters: {maxpart: 1}}]",
            "unknown maxpart",
            id="ejection",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_a_remedy(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(text, where="file.yaml", own=OWN)

    assert "file.yaml" in str(caught.value)
    assert told in str(caught.value)


def test_a_users_scorer_takes_part_by_its_entry_point() -> None:
    found = read_config(
        HEAD + "plugins: [{type: cheap-first, parameters: {label: price}}]", own=OWN
    )
    scheduler = found.scheduler(Random(1))
    pool = make_snapshot(
        [Endpoint(address="a:1"), Endpoint(address="b:1", labels={"price": "low"})]
    )

    choice = scheduler.choose(pool, Question(), at=0)

    assert [each.address for each in choice.ranking.endpoints] == ["b:1"]


def test_a_plugin_that_cannot_be_loaded_is_told() -> None:
    own = {"broken": EntryPoint(name="broken", value="no.such.module:X", group="g")}

    with pytest.raises(ConfigError, match=r"plugin 'broken' \(no\.such\.module:X\) can't be"):
        read_config(HEAD + "plugins: [{type: broken}]", own=own)


def test_limits_of_ejection_saturation_and_queue_are_read() -> None:
    found = read_config(
        HEAD
        + """
plugins: [{type: outlier-ejection, parameters: {consecutive: 5}}]
featureGates: [flowControl]
flowControl: {maxRequests: 10, maxBytes: 1000, defaultRequestTTL: 500ms}
saturationDetector: {queueDepthThreshold: 9, kvCacheUtilThreshold: 0.5, maxConcurrency: 3}
"""
    )

    assert found.rules == EjectionRules(consecutive=5)
    assert found.queue == QueueLimits(requests=10, bytes=1000, ttl_s=0.5)
    assert found.thresholds == Thresholds(queue_depth=9, kv_usage=0.5, in_flight=3)


def test_priority_bands_are_read_as_upstream_means_them() -> None:
    # Defaults and quantities: PriorityBandConfig in llm-d-router's
    # apix/config/v1alpha1/endpointpickerconfig_types.go; 0 is the default there as well.
    found = read_config(
        HEAD
        + """
plugins:
- {type: global-strict-fairness-policy, name: oldest}
- {type: fcfs-ordering-policy}
featureGates: [flowControl]
flowControl:
  maxBytes: 1Gi
  defaultPriorityBand: {maxRequests: 1k}
  priorityBands:
  - {priority: 10, maxRequests: "20", fairnessPolicyRef: oldest}
  - {priority: -1, maxBytes: 2M, maxRequests: 0, orderingPolicyRef: fcfs-ordering-policy}
"""
    )

    assert found.queue == QueueLimits(
        requests=None,
        bytes=1 << 30,
        bands={
            10: Band(requests=20, in_turn=False),
            -1: Band(bytes=2_000_000),
        },
        usual=Band(requests=1000),
    )
    assert not found.notes


def test_every_built_in_plugin_works_in_a_profile() -> None:
    pool = make_snapshot([Endpoint(address=f"{n}:1") for n in range(3)])
    for kind in plugins.BUILT_IN:
        scheduler = read_config(HEAD + f"plugins: [{{type: {kind}}}]", own={}).scheduler(Random(1))

        ranking = scheduler.choose(pool, Question(explain=True), at=0).ranking

        assert ranking.endpoints, kind
        assert ranking.decision is not None
        assert np.isfinite([each.score for each in ranking.decision.considered]).all()


SCHEDULING = Path(__file__).parents[3] / "docs" / "scheduling.md"


def test_the_documentation_names_every_plugin() -> None:
    text = SCHEDULING.read_text()

    missing = [each for each in (*plugins.BUILT_IN, config.EJECTION) if f"`{each}`" not in text]
    assert missing == []


def test_the_documentations_configurations_load() -> None:
    page = SCHEDULING.read_text()
    texts = re.findall(r"```yaml\n(apiVersion: .*?)```", page, re.DOTALL)

    # The one with a scorer of the user's own is loaded where that is installed.
    first, sessions = [read_config(each) for each in texts if "cheap-first-scorer" not in each]

    assert [each.weight for each in first.profile.scorers] == [2, 3]
    assert first.rules.consecutive == 5
    assert sessions.hands_out_tokens


def test_the_documentations_scorer_works() -> None:
    (text,) = re.findall(r"```python\n(.*?)```", SCHEDULING.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102 - our own page
    pool = make_snapshot([Endpoint(address="a:1"), Endpoint(address="b:1", labels={"cost": "low"})])
    board = Board(PrefixIndex(), Estimates())
    board.sync(pool)

    assert names["CheapFirst"]().score(SchedulingRequest(), board.pods((), at=0)) == [0.0, 1.0]
