"""The ledger of one Rollout as it is kept in a ConfigMap. Pure: values in, values out.

One key for each canary, named by its pod-template-hash; looks that do not count (``ledger:
shadow``) have a book of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from inference_analysis.argo.protocol import Outcome
from inference_analysis.errors import InputError
from inference_analysis.ledgers import LAST_EPOCH
from inference_analysis.schema import LedgerDocument

BOOK_SCHEMA: Final = "inference-rollouts.io/analysis-book/v1"
KEPT_BOOKS: Final = 10
"""Canaries that a Rollout's ledger remembers; an older one starts anew."""
KEPT_VERDICTS: Final = 50
KEPT_PROBES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTimes:
    """What one process knows of the probes that it began, in seconds since the epoch."""

    running: frozenset[float] = frozenset()
    """Beginnings of those that have not ended."""
    ended: tuple[tuple[float, float], ...] = ()
    void: frozenset[float] = frozenset()
    """Beginnings of those that ended before they sent anything worth mentioning."""

    def spans(self, now_s: float) -> list[tuple[float, float]]:
        """When prompts were sent, up to now."""
        return [*self.ended, *((begun, now_s) for begun in self.running)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True
    )


class Entry(_Model):
    """What one AnalysisRun was told."""

    run: str
    """Uid of the AnalysisRun."""
    at: float
    """When, in seconds since the epoch."""
    outcome: Outcome
    verdict: str
    lines: list[str]
    final: bool = True
    """False: the verdict waits for a person until ``until``."""
    until: float = 0.0


class Acknowledgement(_Model):
    """What a person has decided."""

    by: str
    reason: str
    at: float
    epoch: int = 0
    """Highest epoch that may decide again; 0: none."""
    decision: Literal["", "proceed", "abort"] = ""
    """What a waiting inconclusive verdict becomes."""


class Book(_Model):
    """All looks at one canary, what came of them, and what people said."""

    schema_: Literal["inference-rollouts.io/analysis-book/v1"] = Field(
        default=BOOK_SCHEMA, alias="schema"
    )
    at: float = 0.0
    """Last change, in seconds since the epoch."""
    ledger: LedgerDocument | None = None
    entries: list[Entry] = []
    acknowledgements: list[Acknowledgement] = []
    epoch_since: float = 0.0
    """When the present try began; 0: the first one."""
    probes: list[tuple[float, float]] = []
    """When prompts were sent to the pods: windows that measure nothing else. A probe that ends
    where it begins has not ended yet, or its process is gone."""
    report: dict[str, Any] | None = None
    """The last comparison as `evaluate --json` prints it, without the ledger."""

    def entry(self, run_uid: str) -> Entry | None:
        """What the AnalysisRun was told before, if it was."""
        return next((entry for entry in self.entries if entry.run == run_uid), None)

    def opened(self, run_created_s: float) -> Book:
        """The book as a run finds it: one that was made after a FAIL begins a new epoch.

        Argo clears ``status.abortedAt`` on a retry, so the book's own FAIL tells. Measurements
        count from the run's creation on: what came between belongs to the version that failed.
        """
        failed = max((e.at for e in self.entries if e.outcome is Outcome.FAILED), default=0.0)
        if failed and failed > self.epoch_since and run_created_s > failed:
            return self.model_copy(update={"epoch_since": run_created_s})
        return self

    @property
    def acknowledged_epoch(self) -> int:
        """Highest epoch that somebody has acknowledged."""
        return max((item.epoch for item in self.acknowledgements), default=0)

    @property
    def permission(self) -> Acknowledgement | None:
        """Why the present try may decide although others failed, if somebody had to say so."""
        segments = self.ledger.segments if self.ledger else ()
        epoch = max((segment.epoch for segment in segments), default=1)
        found = [item for item in self.acknowledgements if item.epoch >= epoch > LAST_EPOCH]
        return found[-1] if found else None

    def decided(self, since_s: float) -> Acknowledgement | None:
        """A person's decision since then on what waits, the last one."""
        found = [item for item in self.acknowledgements if item.decision and item.at >= since_s]
        return found[-1] if found else None

    def with_entry(
        self,
        entry: Entry,
        ledger: LedgerDocument | None = None,
        report: dict[str, Any] | None = None,
    ) -> Book:
        """The book after a verdict; an entry of the same AnalysisRun is replaced."""
        others = [item for item in self.entries if item.run != entry.run]
        return self.model_copy(
            update={
                "at": entry.at,
                "ledger": self.ledger if ledger is None else ledger,
                "report": self.report if report is None else report,
                "entries": [*others, entry][-KEPT_VERDICTS:],
            }
        )

    def with_probe_begun(self, begun_s: float) -> Book:
        """The book before a probe's first prompt."""
        return self._with_probes(dict(self.probes) | {begun_s: begun_s})

    def with_probes(self, times: ProbeTimes, now_s: float) -> Book:
        """The book with what a process knows of its own probes; itself if it has all of it.

        A probe without an end that is not this process' own has lost its process, such as a Job's
        evicted pod: it lasted until now at the most.
        """
        spans = {
            begun: now_s if ended <= begun and begun not in times.running else ended
            for begun, ended in self.probes
            if begun not in times.void
        }
        return self._with_probes(spans | dict(times.ended))

    def _with_probes(self, spans: dict[float, float]) -> Book:
        found = sorted(spans.items())[-KEPT_PROBES:]
        return self if found == self.probes else self.model_copy(update={"probes": found})

    def with_acknowledgement(self, item: Acknowledgement) -> Book:
        """The book after a person has spoken."""
        return self.model_copy(
            update={"at": item.at, "acknowledgements": [*self.acknowledgements, item]}
        )


def book_key(canary_hash: str, ledger: str) -> str:
    """Key of a canary's book."""
    return f"{canary_hash}.shadow.json" if ledger == "shadow" else f"{canary_hash}.json"


def read_book(data: dict[str, str], key: str) -> Book:
    """The canary's book, empty if there is none. Raises InputError for one that cannot be read."""
    text = data.get(key)
    if text is None:
        return Book()
    try:
        return Book.model_validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"ledger key {key}: {error.errors()[0]['msg']}. It was changed by hand or written by "
            "another version; what was spent is not known, so nothing is judged. Delete the key "
            "to begin anew"
        ) from error


def written_book(data: dict[str, str], key: str, book: Book) -> dict[str, str]:
    """The ConfigMap's data with the book in it, without the oldest of too many books."""
    values: dict[str, Any] = book.model_dump(mode="json", by_alias=True)
    found = {**data, key: json.dumps(values, sort_keys=True, separators=(",", ":"))}
    books = sorted((k for k in found if k.endswith(".json")), key=lambda k: _changed(found[k]))
    for old in books[: max(0, len(books) - KEPT_BOOKS)]:
        del found[old]
    return found


def _changed(text: str) -> float:
    try:
        return float(json.loads(text).get("at", 0.0))
    except (ValueError, AttributeError, TypeError):
        return 0.0
