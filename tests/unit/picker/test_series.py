"""The lean series write what prometheus_client would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inference_picker.series import CounterFamily, HistogramFamily, text

BOUNDS = (0.1, 1.0, 2.5)
texts = st.text(max_size=8)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.tuples(texts.filter(bool), st.floats(0, 10, allow_nan=False)), max_size=20))
def test_a_histogram_reads_as_prometheus_clients(observed: list[tuple[str, float]]) -> None:
    registry = CollectorRegistry()
    theirs = Histogram("h", "Help.", ("l",), buckets=BOUNDS, registry=registry)
    family = HistogramFamily("h", "Help.", ("l",), BOUNDS)
    for label, seen in observed:
        theirs.labels(label).observe(seen)
        family.observe((label,), seen)

    found = samples(text(family))

    assert found == pytest.approx(samples(generate_latest(registry).decode()))


@given(st.lists(texts.filter(bool), max_size=20))
def test_a_counter_reads_as_prometheus_clients(counted: list[str]) -> None:
    registry = CollectorRegistry()
    theirs = Counter("c", "Help.", ("l",), registry=registry)
    family = CounterFamily("c", "Help.", ("l",))
    for label in counted:
        theirs.labels(label).inc()
        family.inc((label,))

    assert samples(text(family)) == samples(generate_latest(registry).decode())


def test_text_and_collected_samples_agree() -> None:
    family = HistogramFamily("h", "Help.", ("a", "b"), BOUNDS)
    family.observe(("x", ""), 1.0, times=3)
    registry = CollectorRegistry()
    registry.register(family)

    collected = {
        name: value for (name, _), value in samples(generate_latest(registry).decode()).items()
    }
    written = {name: value for (name, _), value in samples(text(family)).items()}

    assert written == collected
    assert written["h_count"] == 3
    assert written["h_sum"] == 3.0


def test_a_value_on_a_bound_is_within_it() -> None:
    family = HistogramFamily("h", "Help.", (), BOUNDS)
    family.observe((), 0.1)

    assert samples(text(family))["h_bucket", (("le", "0.1"),)] == 1
