"""What the metrics tell of shares."""

from __future__ import annotations

from inference_common.shares import PoolShares
from inference_picker.holding import Held, State
from inference_picker.pool import PoolSnapshot, StaticSource
from inference_picker.shares_series import SharesCollector


def series(held: Held, unmet: dict[tuple[str, str], int]) -> dict[tuple[str, ...], float]:
    collector = SharesCollector(source=StaticSource(PoolSnapshot(held=held)), unmet=unmet)
    return {
        (sample.name.removeprefix("inference_picker_"), *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_wanted_shares_and_what_found_no_room_are_told_by_version() -> None:
    shares = PoolShares(
        rollout="llm/chat", uid="u", counter=1, stable="h1", weights={"h1": 95, "h2": 5}
    )
    found = series(Held(shares=shares, state=State.APPLIED), {("h2", "full"): 3})
    assert found["wanted_share", "h1"] == 0.95
    assert found["wanted_share", "h2"] == 0.05
    assert found["share_unmet_total", "h2", "full"] == 3
    assert found["shares_state", "applied"] == 1
    assert found["shares_state", "kept"] == 0


def test_a_pool_that_nobody_divides_has_no_wanted_share() -> None:
    found = series(Held(), {})
    assert {name for name, *_ in found} == {"shares_state"}
    assert found["shares_state", "free"] == 1
