"""One reading of Prometheus for one AnalysisRun, and its evaluation."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from inference_analysis import checking, translating
from inference_analysis.aliases import families
from inference_analysis.arms import Arms
from inference_analysis.capture_settings import CaptureSettings
from inference_analysis.collecting import cells_document, collected
from inference_analysis.errors import InputError
from inference_analysis.evaluation import evaluate
from inference_analysis.increments import Grid
from inference_analysis.picker_arms import POD_LABEL, PickerArms, PickerBy
from inference_analysis.policies import Statistic
from inference_analysis.prometheus import Prometheus
from inference_analysis.reports import document, rendered
from inference_analysis.schema import LedgerDocument

if TYPE_CHECKING:
    from inference_analysis.argo.books import Book
    from inference_analysis.argo.settings import AnalysisDocument
    from inference_analysis.argo.subjects import Subject
    from inference_analysis.evaluation import Evaluation
    from inference_analysis.schema import CellsDocument


def arms_of(subject: Subject, settings: AnalysisDocument) -> Arms | PickerArms:
    """The two versions. Raises InputError for hashes or names that cannot be used."""
    pods, arms = settings.pods, settings.arms
    if arms.by != "pods":
        return PickerArms(
            namespace=subject.namespace,
            rollout=subject.rollout,
            by=PickerBy(arms.by),
            canary_hash=subject.canary_hash,
            stable_hash=subject.stable_hash,
            canary_adapter=subject.canary_destination,
            stable_adapter=subject.stable_destination,
            control_adapter=arms.control_adapter,
            pool=arms.pool,
            with_control=arms.control,
            namespace_label=pods.namespace_label,
        )
    return Arms(
        namespace=subject.namespace,
        rollout=subject.rollout,
        canary_hash=subject.canary_hash,
        stable_hash=subject.stable_hash,
        by=pods.by,
        hash_label=pods.hash_label,
        namespace_label=pods.namespace_label,
        pod_label=pods.pod_label,
    )


def grid_of(settings: AnalysisDocument, *, since_s: float, until_s: float) -> Grid:
    """Whole windows that end at ``until_s`` and begin at ``since_s`` at the earliest.

    Raises InputError when not even one fits.
    """
    windows = settings.windows
    end = math.floor(until_s)
    since = max(since_s, end - windows.lookback)
    width = math.floor((end - since) / windows.length + 1e-9)
    if width < 1:
        raise InputError(
            f"the canary is {end - since:.0f} s old: less than one window of {windows.length:g} s"
        )
    start = end - width * windows.length
    return Grid(
        since_s=start - max(windows.warm_up, 2 * windows.length),
        start_s=start,
        seconds=windows.length,
        width=width,
    )


def read_cells(
    subject: Subject, settings: AnalysisDocument, *, since_s: float, until_s: float
) -> tuple[CellsDocument, tuple[str, ...]]:
    """What Prometheus has on both versions, and remarks on it. Blocks for as long as it takes.

    Raises InputError and PrometheusError.
    """
    arms = arms_of(subject, settings)
    of_picker = isinstance(arms, PickerArms)
    found_families = arms.families if isinstance(arms, PickerArms) else families(settings.aliases)
    gates = settings.policy.gates
    named = {g.metric for g in gates if g.statistic in {Statistic.MEAN, Statistic.TAIL}}
    if any(g.statistic is Statistic.RATE for g in gates):
        named.add("requests")
    grid = grid_of(settings, since_s=since_s, until_s=until_s)
    capture = CaptureSettings(
        grid=grid,
        # The picker's series say themselves what is warm-up, and their targets are pickers.
        warm_up_s=0.0 if of_picker else settings.windows.warm_up,
        pod_label=POD_LABEL if of_picker else settings.pods.pod_label,
        node_label="" if of_picker else settings.pods.node_label,
        hardware_label="" if of_picker else settings.pods.hardware_label,
        shared=arms.shared if isinstance(arms, PickerArms) else None,
        error_reasons=frozenset(settings.error_reasons),
        required=named | {text.partition("=")[0] for text in settings.aliases},
        no_pods=arms.remedy(),
    )
    with Prometheus(settings.prometheus.access()) as server:
        found = collected(server, arms, found_families, capture)
    values = cells_document(
        arms,
        found,
        look={"id": subject.run_uid, "fraction": 1.0},
        policy=settings.policy_values(),
        ledger=None,
    )
    return checking.parse(json.dumps(values, allow_nan=False)), found.notes


def judged(cells: CellsDocument, book: Book, *, look_id: str, fraction: float) -> Evaluation:
    """One look at the cells with what the book says was spent. Raises InputError."""
    request = cells.look.model_copy(
        update={
            "id": look_id,
            "fraction": fraction,
            "aborted_at": book.epoch_since,
            "acknowledged_epoch": book.acknowledged_epoch,
        }
    )
    return evaluate(
        translating.observations(cells),
        translating.policy(cells.policy),
        translating.look(request),
        translating.ledger(book.ledger),
        fingerprint=translating.fingerprint(cells.policy),
    )


def report_of(evaluation: Evaluation, cells: CellsDocument) -> dict[str, Any]:
    """The comparison's JSON values; the ledger stands beside it already."""
    found: dict[str, Any] = json.loads(rendered(document(evaluation, cells.rollout)))
    del found["ledger"]
    return found


def ledger_after(evaluation: Evaluation) -> LedgerDocument:
    """The ledger with the look in it, as the book keeps it."""
    return LedgerDocument.model_validate(translating.ledger_document(evaluation.ledger))
