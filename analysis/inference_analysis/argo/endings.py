"""What an AnalysisRun is told: five lines and an outcome, with or without a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inference_analysis.argo.books import Entry
from inference_analysis.argo.protocol import Outcome
from inference_analysis.verdicts import Action, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.argo.books import Acknowledgement
    from inference_analysis.argo.settings import AnalysisDocument
    from inference_analysis.argo.subjects import Subject
    from inference_analysis.verdicts import Decision

_OUTCOMES: Final = {
    Action.PROCEED: Outcome.SUCCESSFUL,
    Action.ABORT: Outcome.FAILED,
    Action.PAUSE: Outcome.INCONCLUSIVE,
}
_WORDS: Final = {outcome: action for action, outcome in _OUTCOMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An entry in the making."""

    outcome: Outcome
    verdict: str
    lines: tuple[str, ...]


def judged_ending(decision: Decision, lines: Sequence[str]) -> Ending:
    """What a comparison leads to."""
    return Ending(
        outcome=_OUTCOMES[decision.action], verdict=decision.verdict.value, lines=tuple(lines)
    )


def plain_ending(subject: Subject, outcome: Outcome, why: str, then: str) -> Ending:
    """What comes without a comparison; the same five lines."""
    word = "NOTHING TO COMPARE" if outcome is Outcome.SUCCESSFUL else "INCONCLUSIVE"
    name = f"{subject.namespace}/{subject.rollout} canary {subject.canary_hash}"
    return Ending(
        outcome=outcome,
        verdict=Verdict.INCONCLUSIVE.value,
        lines=(
            f"{word}, {_WORDS[outcome]}: {name}",
            f"why: {' | '.join(why.splitlines())}",
            "gates (+ is worse): none was judged",
            "data: none was used",
            f"next: {then}",
        ),
    )


def entry_of(ending: Ending, run: str, now_s: float) -> Entry:
    """The ending as the book keeps it."""
    return Entry(
        run=run,
        at=now_s,
        outcome=ending.outcome,
        verdict=ending.verdict,
        lines=list(ending.lines),
    )


def held(ending: Ending, subject_run: str, settings: AnalysisDocument, now_s: float) -> Entry:
    """The entry for an ending: an inconclusive one may wait for a person first."""
    entry = entry_of(ending, subject_run, now_s)
    if ending.outcome is not Outcome.INCONCLUSIVE:
        return entry
    if settings.max_wait:
        return entry.model_copy(update={"final": False, "until": now_s + settings.max_wait})
    return unattended(entry, settings, now_s)


def unattended(entry: Entry, settings: AnalysisDocument, now_s: float) -> Entry:
    """An inconclusive entry that no person decides: ``onInconclusive`` does."""
    outcome = _OUTCOMES[Action(settings.on_inconclusive)]
    if outcome is Outcome.INCONCLUSIVE:
        return entry.model_copy(update={"final": True})
    waited = f"nobody decided within {settings.max_wait:g} s, and " if settings.max_wait else ""
    return _settled(entry, outcome, f"{waited}onInconclusive is {settings.on_inconclusive}", now_s)


def cut_short(entry: Entry, settings: AnalysisDocument, now_s: float) -> Entry:
    """An inconclusive entry that could wait no longer, although ``maxWait`` has not passed."""
    found = unattended(entry, settings.model_copy(update={"max_wait": 0.0}), now_s)
    first, why, *rest = found.lines
    said = "its AnalysisTemplate allows no longer wait: generate it again with this maxWait"
    return found.model_copy(update={"lines": [first, f"{why}; {said}", *rest]})


def attended(entry: Entry, decision: Acknowledgement, now_s: float) -> Entry:
    """An inconclusive entry that a person has decided."""
    outcome = _OUTCOMES[Action(decision.decision)]
    why = f"{decision.by} decided to {decision.decision}: {decision.reason}"
    return _settled(entry, outcome, why, now_s)


def noted(entry: Entry, permission: Acknowledgement) -> Entry:
    """The entry with who has let this canary be judged again, and why."""
    first, why, *rest = entry.lines
    said = f"{permission.by} has acknowledged a further try: {permission.reason}"
    return entry.model_copy(update={"lines": [first, f"{why}; {said}", *rest]})


def _settled(entry: Entry, outcome: Outcome, why: str, now_s: float) -> Entry:
    first, reason, *rest = entry.lines
    before = f", {_WORDS[entry.outcome]}:"
    return entry.model_copy(
        update={
            "outcome": outcome,
            "at": now_s,
            "final": True,
            "lines": [
                first.replace(before, f", {_WORDS[outcome]}:", 1),
                f"{reason}; {why}",
                *rest,
            ],
        }
    )
