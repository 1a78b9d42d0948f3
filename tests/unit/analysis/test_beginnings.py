"""A picker's series that begin while it is watched begin at 0."""

from __future__ import annotations

import numpy as np
import pytest

from inference_analysis.beginnings import from_zero
from inference_analysis.increments import Grid
from inference_analysis.series import Series

GRID = Grid(since_s=0.0, start_s=30.0, seconds=30.0, width=4)


def one(times: list[float], **labels: str) -> Series:
    known = {"__name__": "inference_picker_requests_total", "instance": "picker:9090"}
    return Series(
        name=known["__name__"],
        labels=known | {"endpoint": "chat-0", "sample": "canary"} | labels,
        times=np.array(times),
        values=np.arange(3.0, 3.0 + len(times)),
    )


# The picker is scraped every ten seconds, as a server of stable shows.
OTHERS = one([5.0, 15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0], endpoint="chat-1", sample="control")


@pytest.mark.parametrize(
    ("item", "zeros"),
    [
        pytest.param(one([75.0]), [55.0, 65.0], id="from-the-edge-of-its-window"),
        pytest.param(one([35.0, 45.0]), [25.0], id="in-the-first-window"),
        pytest.param(one([5.0, 15.0]), [], id="older-than-the-samples"),
        pytest.param(one([75.0], instance="other:9090"), [], id="another-picker"),
        pytest.param(one([]), [], id="no-sample"),
    ],
)
def test_zeros_cover_the_window_of_the_first_request(item: Series, zeros: list[float]) -> None:
    _, (found,) = from_zero([[OTHERS], [item]], GRID)

    assert found.times.tolist() == [*zeros, *item.times.tolist()]
    assert found.values.tolist() == [0.0] * len(zeros) + item.values.tolist()


def test_a_series_that_follows_another_of_its_server_is_0_since_then() -> None:
    first = one([35.0, 45.0, 55.0, 65.0, 75.0])
    later = one([75.0], phase="warmup")

    ((_, found), _) = from_zero([[first, later], [OTHERS]], GRID)

    assert found.times.tolist() == [25.0, 35.0, 45.0, 55.0, 65.0, 75.0]
    assert found.values.tolist() == [0.0] * 5 + [3.0]
