from __future__ import annotations

import pytest

from inference_analysis.argo.books import (
    KEPT_BOOKS,
    Acknowledgement,
    Book,
    Entry,
    ProbeTimes,
    book_key,
    read_book,
    written_book,
)
from inference_analysis.argo.protocol import Outcome
from inference_analysis.errors import InputError
from inference_analysis.schema import LEDGER_SCHEMA, LedgerDocument, SegmentDocument


def entry(run: str, at: float, outcome: Outcome = Outcome.SUCCESSFUL) -> Entry:
    return Entry(run=run, at=at, outcome=outcome, verdict="pass", lines=["one"])


def test_a_book_comes_back_as_it_was_written() -> None:
    book = Book().with_entry(entry("u1", 5.0))
    book = book.with_acknowledgement(Acknowledgement(by="ann", reason="known", at=6.0, epoch=3))
    data = written_book({"old.json": "{}"}, "6d5f.json", book)
    assert read_book(data, "6d5f.json") == book
    assert data["old.json"] == "{}"
    assert book.acknowledged_epoch == 3


def test_an_analysisrun_has_one_entry_at_most() -> None:
    book = Book().with_entry(entry("u1", 5.0)).with_entry(entry("u1", 7.0, Outcome.FAILED))
    assert [item.at for item in book.entries] == [7.0]


@pytest.mark.parametrize(
    ("created", "since"),
    [
        pytest.param(10.0, 0.0, id="a-run-that-was-there-before-the-fail-is-of-the-same-try"),
        pytest.param(30.0, 30.0, id="one-made-after-it-begins-a-new-epoch"),
    ],
)
def test_a_fail_divides_tries(created: float, since: float) -> None:
    book = Book().with_entry(entry("u1", 20.0, Outcome.FAILED))
    assert book.opened(created).epoch_since == since


def test_later_runs_of_a_retry_stay_in_its_epoch() -> None:
    book = Book().with_entry(entry("u1", 20.0, Outcome.FAILED)).opened(30.0)
    book = book.with_entry(entry("u2", 35.0))
    assert book.opened(50.0).epoch_since == 30.0
    again = book.with_entry(entry("u3", 60.0, Outcome.FAILED))
    assert again.opened(70.0).epoch_since == 70.0


def test_a_decision_counts_for_what_waited_before_it() -> None:
    said = Acknowledgement(by="ann", reason="seen", at=20.0, decision="proceed")
    book = Book().with_acknowledgement(said)
    assert book.decided(10.0) == said
    assert book.decided(30.0) is None


def test_the_oldest_canaries_are_forgotten_first() -> None:
    data: dict[str, str] = {}
    for at in range(KEPT_BOOKS + 2):
        book = Book().with_entry(entry("u", float(at)))
        data = written_book(data, book_key(f"h{at}", "live"), book)
    assert len(data) == KEPT_BOOKS
    assert "h0.json" not in data
    assert f"h{KEPT_BOOKS + 1}.json" in data


def test_looks_that_do_not_count_have_a_book_of_their_own() -> None:
    assert book_key("6d5f", "shadow") != book_key("6d5f", "live")


@pytest.mark.parametrize("text", ["{", '{"schema": "other"}', '{"entries": 1}'])
def test_a_book_that_cannot_be_read_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(InputError, match="Delete the key"):
        read_book({"6d5f.json": text}, "6d5f.json")


def test_a_third_try_names_who_allowed_it_and_a_second_needs_nobody() -> None:
    def tried(epochs: int) -> Book:
        segments = [
            SegmentDocument(epoch=n, since=float(n), policy="p", budget=0.8)
            for n in range(1, epochs + 1)
        ]
        ledger = LedgerDocument.model_validate(
            {"schema": LEDGER_SCHEMA, "segments": [s.model_dump(by_alias=True) for s in segments]}
        )
        return Book(ledger=ledger).with_acknowledgement(
            Acknowledgement(by="ann", reason="a bad node", at=6.0, epoch=3)
        )

    assert tried(2).permission is None
    found = tried(3).permission
    assert found is not None
    assert found.by == "ann"
    assert tried(4).permission is None


def test_a_probes_beginning_becomes_a_span_when_it_ends_and_nothing_if_nothing_was_sent() -> None:
    book = Book().with_probe_begun(10.0).with_probe_begun(50.0)
    assert book.probes == [(10.0, 10.0), (50.0, 50.0)]
    own = ProbeTimes(running=frozenset({10.0, 50.0}))
    assert book.with_probes(own, 60.0) is book
    own = ProbeTimes(ended=((10.0, 30.0),), void=frozenset({50.0}))
    after = book.with_probes(own, 60.0)
    assert after.probes == [(10.0, 30.0)]
    assert after.with_probes(own, 70.0) is after


def test_a_probe_without_its_process_ends_where_another_process_finds_it() -> None:
    book = Book(probes=[(10.0, 30.0)]).with_probe_begun(50.0)
    assert book.with_probes(ProbeTimes(), 60.0).probes == [(10.0, 30.0), (50.0, 60.0)]
    # Where its process lives after all, as with two servers, what that one knows counts.
    late = ProbeTimes(ended=((50.0, 90.0),))
    assert book.with_probes(ProbeTimes(), 60.0).with_probes(late, 99.0).probes[-1] == (50.0, 90.0)
