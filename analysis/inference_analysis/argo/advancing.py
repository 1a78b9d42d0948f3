"""What happens at one moment of one AnalysisRun: nothing yet, or its end.

A Job calls ``advance`` in a loop, the Web endpoint once for each measurement.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from inference_analysis.argo.books import book_key
from inference_analysis.argo.endings import (
    Ending,
    attended,
    cut_short,
    entry_of,
    held,
    judged_ending,
    noted,
    plain_ending,
    unattended,
)
from inference_analysis.argo.looking import judged, ledger_after, read_cells, report_of
from inference_analysis.argo.protocol import Outcome
from inference_analysis.argo.subjects import nothing_to_compare
from inference_analysis.errors import EndpointError, InputError, PrometheusError
from inference_analysis.prompts.probe_times import without_probes
from inference_analysis.prompts.scored_cells import with_prompts
from inference_analysis.reports import lines as report_lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from inference_analysis.argo.books import Book, Entry
    from inference_analysis.argo.quality import QualityProbes
    from inference_analysis.argo.settings import AnalysisDocument
    from inference_analysis.argo.store import Store
    from inference_analysis.argo.subjects import Subject
    from inference_analysis.evaluation import Evaluation
    from inference_analysis.prompts.settings import QualityDocument
    from inference_analysis.schema import CellsDocument

_LOOK_AGAIN: Final = "remove the cause, then resume or retry the Rollout: that looks again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """One AnalysisRun at work."""

    subject: Subject
    settings: AnalysisDocument
    rollout: Mapping[str, Any]
    store: Store
    canary_since_s: float
    """When the canary's oldest pod was made; earlier measurements are of an earlier life."""
    told: Callable[[Entry], Awaitable[None]]
    """Called once for each new entry, by the process that has written it."""
    probes: QualityProbes
    """Asks both versions the same prompts, where the settings say so."""
    asked_again: bool = True
    """Whether a look or a verdict may wait; False where nothing asks again."""

    @property
    def key(self) -> str:
        """Key of the canary's book."""
        return book_key(self.subject.canary_hash, self.settings.ledger)

    async def advance(self, now_s: float) -> Entry | None:
        """The AnalysisRun's final entry if there is one now; None: call again later.

        Raises KubeError, LedgerError, and InputError for a book that cannot be read.
        """
        book = await self.store.read(self.key)
        times = self.probes.times(self.subject)
        if book.with_probes(times, now_s) is not book:
            book = await self.store.change(self.key, lambda found: found.with_probes(times, now_s))
        book = book.opened(self.subject.created_s)
        entry = book.entry(self.subject.run_uid)
        if entry is not None and entry.final:
            return entry
        if entry is not None:
            return await self._waiting(entry, book, now_s)
        started = await self._started(now_s)
        if started is not None:
            return started if started.final else None
        if nothing_to_compare(self.subject, self.rollout):
            # A background run outlives its canary by a moment; Argo ends it.
            return None
        if self.subject.background:
            return await self._background(book, now_s)
        due = self.subject.created_s + self.settings.look.after
        if now_s < due:
            self._begin_probe()
        return await (self._gross_harm(book, now_s) if now_s < due else self._step(book, now_s))

    async def _started(self, now_s: float) -> Entry | None:
        """The entry of an AnalysisRun that has nothing to compare, or not what it was told."""
        try:
            reason = nothing_to_compare(self.subject, self.rollout)
        except InputError as error:
            ending = plain_ending(self.subject, Outcome.INCONCLUSIVE, str(error), _LOOK_AGAIN)
            return await self._ended(ending, now_s)
        if not reason or self.subject.background:
            return None
        ending = plain_ending(self.subject, Outcome.SUCCESSFUL, reason, "nothing is needed")
        return await self._ended(ending, now_s)

    async def _step(self, book: Book, now_s: float) -> Entry | None:
        """The look of a step, as soon as there is anything to look at."""
        subject, settings = self.subject, self.settings
        try:
            return await self._look(book, now_s, look_id=subject.run_uid, fraction=subject.fraction)
        except (InputError, PrometheusError, EndpointError) as error:
            # Windows with prompts measure nothing: where the answers came late, none may be left.
            begun = max(
                subject.created_s + settings.look.after, self.probes.answered_s(subject.run_uid)
            )
            if now_s < begun + settings.retry_for:
                structlog.get_logger().warning("nothing to judge yet", problem=str(error))
                return None
            ending = plain_ending(subject, Outcome.INCONCLUSIVE, str(error), _LOOK_AGAIN)
            entry = await self._ended(ending, now_s)
            return entry if entry.final else None

    async def _background(self, book: Book, now_s: float) -> Entry | None:
        """A FAIL ends the run; anything else is noted, and the run goes on."""
        plan, subject = self.settings.background, self.subject
        due = int(plan.looks * (now_s - subject.created_s) / plan.over)
        number = min(due, plan.looks)
        look_id = f"{subject.run_uid}/{number}"
        if not number or book.entry(look_id) is not None:
            return await self._gross_harm(book, now_s)
        try:
            found = await self._look(book, now_s, look_id=look_id, fraction=number / plan.looks)
        except (InputError, PrometheusError, EndpointError) as error:
            structlog.get_logger().warning("nothing to judge yet", problem=str(error))
            return None
        return found if found is not None and found.outcome is Outcome.FAILED else None

    async def _gross_harm(self, book: Book, now_s: float) -> Entry | None:
        """FAIL at once where the recent windows show gross harm; costs no look otherwise."""
        since = max(self._since(book), now_s - self.settings.look.recent)
        try:
            cells = await self._read(book, since, now_s)
            # Not the run's own id: its look may be taken already, and would only be replayed.
            look_id = f"{self.subject.run_uid}/gross"
            evaluation = judged(cells, book, look_id=look_id, fraction=self.subject.fraction)
            if not any(check.fired for check in evaluation.gross):
                return None
            return await self._booked(cells, now_s, look_id=look_id, fraction=self.subject.fraction)
        except (InputError, PrometheusError) as error:
            structlog.get_logger().debug("gross harm is not checked", problem=str(error))
            return None

    async def _look(
        self, book: Book, now_s: float, *, look_id: str, fraction: float
    ) -> Entry | None:
        prompts: list[dict[str, Any]] | None = []
        if self.settings.quality is not None:
            prompts = self._poll(look_id, self.settings.quality)
            if prompts is None and not self.asked_again:
                raise EndpointError(
                    "quality: the prompts are still being asked. Give the look more time "
                    "(look.after), raise quality.rate, or take fewer prompts"
                )
            if prompts is None:
                # Meanwhile the pods are watched as before the look.
                return await self._gross_harm(book, now_s)
        cells = await self._read(book, self._since(book), now_s)
        if prompts:
            cells = with_prompts(cells, prompts)
        return await self._booked(cells, now_s, look_id=look_id, fraction=fraction)

    def _begin_probe(self) -> None:
        """Ask the prompts while the traffic is waited for; what goes wrong is asked again."""
        if self.settings.quality is None:
            return
        try:
            self._poll(self.subject.run_uid, self.settings.quality)
        except (InputError, EndpointError) as error:
            structlog.get_logger().warning("no answers to compare yet", problem=str(error))

    def _poll(self, look_id: str, quality: QualityDocument) -> list[dict[str, Any]] | None:
        def begins(begun_s: float) -> Awaitable[Book]:
            return self.store.change(self.key, lambda book: book.with_probe_begun(begun_s))

        return self.probes.poll(look_id, self.subject, quality, begins)

    async def _booked(
        self, cells: CellsDocument, now_s: float, *, look_id: str, fraction: float
    ) -> Entry | None:
        """Book the look and what came of it in one write; judged anew when others wrote first."""
        written: list[Entry] = []

        def change(book: Book) -> Book:
            written.clear()
            found = book.entry(self.subject.run_uid)
            if found is not None and found.final:
                return book
            book = book.opened(self.subject.created_s)
            evaluation = judged(cells, book, look_id=look_id, fraction=fraction)
            ledger = ledger_after(evaluation)
            permission = book.model_copy(update={"ledger": ledger}).permission
            entry = self._entry(evaluation, cells, look_id, now_s)
            if permission is not None:
                entry = noted(entry, permission)
            written.append(entry)
            return book.with_entry(entry, ledger, report_of(evaluation, cells))

        book = await self.store.change(self.key, change)
        for entry in written:
            await self.told(entry)
            if entry.run == self.subject.run_uid:
                return entry if entry.final else None
        return book.entry(self.subject.run_uid)

    def _entry(
        self, evaluation: Evaluation, cells: CellsDocument, look_id: str, now_s: float
    ) -> Entry:
        ending = judged_ending(evaluation.decision, report_lines(evaluation, cells.rollout))
        if not self.subject.background:
            return held(ending, self.subject.run_uid, self.settings, now_s)
        run = self.subject.run_uid if ending.outcome is Outcome.FAILED else look_id
        return entry_of(ending, run, now_s)

    async def _waiting(self, entry: Entry, book: Book, now_s: float) -> Entry | None:
        """An inconclusive verdict waits for a person; gross harm still ends it."""
        decision = book.decided(entry.at)
        if decision is not None:
            return await self._replaced(attended(entry, decision, now_s))
        if now_s >= entry.until:
            return await self._replaced(unattended(entry, self.settings, now_s))
        if not self.asked_again:
            return await self._replaced(cut_short(entry, self.settings, now_s))
        return await self._gross_harm(book, now_s)

    async def _ended(self, ending: Ending, now_s: float) -> Entry:
        return await self._replaced(held(ending, self.subject.run_uid, self.settings, now_s))

    async def _replaced(self, entry: Entry) -> Entry:
        written: list[Entry] = []

        def change(book: Book) -> Book:
            written.clear()
            found = book.entry(entry.run)
            if found is not None and found.final:
                return book
            written.append(entry)
            return book.opened(self.subject.created_s).with_entry(entry)

        book = await self.store.change(self.key, change)
        for item in written:
            await self.told(item)
        return book.entry(entry.run) or entry

    def _since(self, book: Book) -> float:
        return max(self.canary_since_s, book.epoch_since)

    async def _read(self, book: Book, since_s: float, now_s: float) -> CellsDocument:
        cells, notes = await asyncio.to_thread(
            read_cells, self.subject, self.settings, since_s=since_s, until_s=now_s
        )
        for note in notes:
            structlog.get_logger().info("remark on the data", remark=note)
        # A probe may have ended since the book was read.
        own = self.probes.times(self.subject).spans(now_s)
        return without_probes(cells, [*book.probes, *own])
