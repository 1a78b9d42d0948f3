from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_analysis.ledgers import Ledger, LookKind, LookRequest, Stand, stand
from inference_analysis.policies import Policy
from inference_analysis.spending import critical_values, spent

ALPHA = 0.01


def look(
    ledger: Ledger,
    identity: str,
    fraction: float,
    *,
    aborted: float = 0.0,
    policy: str = "a",
    until: float = 100.0,
) -> Stand:
    request = LookRequest(id=identity, fraction=fraction, aborted_at_s=aborted)
    return stand(ledger, request, Policy(), fingerprint=policy, until_s=until)


def test_planned_looks_spend_four_fifths_by_lan_demets() -> None:
    ledger = Ledger()
    for k in (1, 2, 3):
        at = look(ledger, f"run-{k}", k / 5)
        assert at.look.kind is LookKind.PLANNED
        ledger = at.booked("inconclusive", {})
    z = critical_values((0.2, 0.4, 0.6), 0.8 * ALPHA)
    at = look(ledger, "run-3", 0.6)
    assert at.replayed
    from scipy.stats import norm  # noqa: PLC0415 - the oracle, slow to import

    assert at.fail_level(ALPHA) == pytest.approx(norm.sf(z[-1]), rel=1e-9)


def test_the_same_run_never_costs_a_second_look() -> None:
    ledger = look(Ledger(), "run-1", 0.2).booked("inconclusive", {})
    again = look(ledger, "run-1", 0.2, until=900.0)
    assert again.replayed
    assert again.look.until_s == 100.0
    assert again.booked("inconclusive", {}) == ledger


def test_a_replayed_look_keeps_the_level_it_had() -> None:
    first = look(Ledger(), "run-1", 0.2)
    ledger = first.booked("inconclusive", {})
    ledger = look(ledger, "run-2", 0.4).booked("inconclusive", {})
    assert look(ledger, "run-1", 0.2).fail_level(ALPHA) == first.fail_level(ALPHA)


def test_a_look_outside_the_plan_draws_from_the_reserve() -> None:
    ledger = look(Ledger(), "run-1", 0.4).booked("inconclusive", {})
    extra = look(ledger, "run-2", 0.4)
    assert extra.look.kind is LookKind.EXTRA
    assert extra.fail_level(ALPHA) == pytest.approx(0.2 * ALPHA / 2)
    third = look(extra.booked("inconclusive", {}), "run-3", 0.4)
    assert third.fail_level(ALPHA) == pytest.approx(0.2 * ALPHA / 4)


def test_only_the_planned_end_and_later_looks_can_pass_each_on_its_own_level() -> None:
    early = look(Ledger(), "run-1", 0.5)
    assert not early.may_pass
    end = look(early.booked("inconclusive", {}), "run-2", 1.0)
    assert end.may_pass
    assert end.pass_level == pytest.approx(0.8 * 0.05)
    resumed = look(end.booked("inconclusive", {}), "run-3", 1.0)
    assert resumed.pass_level == pytest.approx(0.2 * 0.05 / 2)


def test_a_retry_after_an_abort_opens_an_epoch_with_data_from_then_on() -> None:
    ledger = look(Ledger(), "run-1", 1.0).booked("fail", {})
    retry = look(ledger, "run-2", 0.2, aborted=500.0)
    assert retry.segment.epoch == 2
    assert retry.segment.since_s == 500.0
    assert retry.segment.budget == pytest.approx(0.2 / 2)
    assert retry.look.kind is LookKind.PLANNED
    same = look(retry.booked("inconclusive", {}), "run-3", 0.4, aborted=500.0)
    assert same.segment.epoch == 2


def test_a_third_epoch_needs_an_acknowledgement() -> None:
    ledger = look(Ledger(), "run-1", 1.0).booked("fail", {})
    ledger = look(ledger, "run-2", 1.0, aborted=500.0).booked("fail", {})
    third = look(ledger, "run-3", 0.2, aborted=900.0)
    assert third.needs_acknowledgement
    request = LookRequest(id="run-3", fraction=0.2, aborted_at_s=900.0, acknowledged_epoch=3)
    given = stand(ledger, request, Policy(), fingerprint="a", until_s=1.0)
    assert not given.needs_acknowledgement


def test_a_changed_policy_keeps_what_is_spent() -> None:
    ledger = look(Ledger(), "run-1", 0.5).booked("inconclusive", {})
    changed = look(ledger, "run-2", 0.75, policy="b")
    used = spent(0.5, 0.8 * 0.04) / (0.8 * 0.04)
    assert changed.segment.budget == pytest.approx(0.8 * (1 - used))
    assert changed.segment.scaled(0.75) == pytest.approx(0.5)


def test_a_policy_changed_after_the_end_leaves_only_the_reserve() -> None:
    ledger = look(Ledger(), "run-1", 1.0).booked("inconclusive", {})
    changed = look(ledger, "run-2", 1.0, policy="b")
    assert changed.look.kind is LookKind.EXTRA
    assert changed.fail_level(ALPHA) == pytest.approx(0.2 * ALPHA / 2)


def test_tail_edges_are_fixed_at_the_first_look() -> None:
    ledger = look(Ledger(), "run-1", 0.2).booked("inconclusive", {"ttft": 0.75})
    ledger = look(ledger, "run-2", 0.4).booked("inconclusive", {"ttft": 1.0, "e2e": 5.0})
    assert ledger.tail_edges == {"ttft": 0.75, "e2e": 5.0}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]),
            st.sampled_from(["go", "abort", "policy"]),
        ),
        max_size=12,
    )
)
def test_no_sequence_of_looks_spends_more_than_the_budget(steps: list[tuple[float, str]]) -> None:
    ledger, total, passes, aborted, policy = Ledger(), 0.0, 0.0, 0.0, 0
    for number, (fraction, event) in enumerate(steps):
        aborted += 100.0 if event == "abort" else 0.0
        policy += event == "policy"
        at = look(ledger, str(number), fraction, aborted=aborted, policy=str(policy))
        if at.look.kind is LookKind.EXTRA:
            total += at.fail_level(ALPHA)
        passes += at.pass_level if at.may_pass else 0.0
        ledger = at.booked("inconclusive", {})
    for segment in ledger.segments:
        if segment.planned:
            total += spent(max(segment.planned), segment.budget * ALPHA)
    assert total <= ALPHA * (1 + 1e-9)
    assert passes <= 0.05 * (1 + 1e-9)
