"""What is learnt about the gateways, and which answers are watched."""

from __future__ import annotations

import pytest

from inference_picker.gateway import Gateways
from inference_picker.messages import BodyMode, Ended, Finish, Pick, Sample, TokenTimes
from inference_picker.metrics import Metrics
from inference_picker.sampling import Sampling

PICK = Pick(endpoints=("10.0.0.1:80",))
BUFFERED = (BodyMode.BUFFERED, BodyMode.NONE)
DUPLEX = (BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)


def finish(ended: Ended, **fields: object) -> Finish:
    return Finish(
        **{"pick": PICK, "ended": ended, "duration_s": 1.0, "body_asked": True, **fields}  # type: ignore[arg-type]
    )


def told(metrics: Metrics) -> set[tuple[str, str, str]]:
    return {
        (
            sample.labels["request_body"],
            sample.labels["response_body"],
            sample.labels["override"],
        )
        for family in metrics.gateway_mode.collect()
        for sample in family.samples
        if sample.value == 1
    }


def test_each_mode_is_told_in_the_metrics() -> None:
    metrics = Metrics()
    gateways = Gateways(metrics)
    for modes in (BUFFERED, DUPLEX, BUFFERED):
        gateways.called(*modes)

    assert told(metrics) == {
        ("BUFFERED", "NONE", "unknown"),
        ("FULL_DUPLEX_STREAMED", "FULL_DUPLEX_STREAMED", "unknown"),
    }
    assert gateways.echo


def test_a_body_that_came_shows_that_overrides_are_taken() -> None:
    metrics = Metrics()
    gateways = Gateways(metrics)
    gateways.called(*BUFFERED)

    gateways.corrected(finish(Ended.COMPLETE), *BUFFERED)

    assert told(metrics) == {("BUFFERED", "NONE", "yes")}
    assert not gateways.echo


def test_a_body_that_never_came_is_no_reset_where_overrides_are_not_known_to_work() -> None:
    metrics = Metrics()
    gateways = Gateways(metrics)
    gateways.called(*BUFFERED)

    found = gateways.corrected(finish(Ended.UNSEEN, tokens=TokenTimes(malformed=True)), *BUFFERED)

    assert (found.ended, found.tokens) == (Ended.UNSEEN, None)
    assert told(metrics) == {("BUFFERED", "NONE", "no")}


def test_a_body_that_never_came_is_a_reset_where_they_are() -> None:
    gateways = Gateways(Metrics())
    gateways.called(*BUFFERED)
    gateways.corrected(finish(Ended.COMPLETE), *BUFFERED)

    assert gateways.corrected(finish(Ended.UNSEEN), *BUFFERED).ended is Ended.RESET


@pytest.mark.parametrize(
    ("ended", "asked"), [(Ended.UNSEEN, False), (Ended.NO_RESPONSE, True), (Ended.UNFOLLOWED, True)]
)
def test_other_ends_stay_as_they_are(ended: Ended, asked: bool) -> None:
    gateways = Gateways(Metrics())
    gateways.called(*BUFFERED)
    gateways.corrected(finish(Ended.COMPLETE), *BUFFERED)

    assert gateways.corrected(finish(ended, body_asked=asked), *BUFFERED).ended is ended


@pytest.mark.parametrize("sample", [Sample.CANARY, Sample.CONTROL])
def test_every_canary_and_control_answer_is_watched(sample: Sample) -> None:
    sampling = Sampling(share=0.0)

    assert all(sampling.watches(sample) for _ in range(100))
    assert not any(sampling.watches(Sample.BACKGROUND) for _ in range(100))


@pytest.mark.parametrize("share", [0.05, 0.25, 1.0])
def test_an_even_share_of_the_rest_is_watched(share: float) -> None:
    sampling = Sampling(share=share, start=12_345)

    for _ in range(5):
        # A golden-ratio sequence is off by less than 2 in any 100 in a row.
        watched = sum(sampling.watches(Sample.BACKGROUND) for _ in range(100))
        assert abs(watched - 100 * share) < 2
