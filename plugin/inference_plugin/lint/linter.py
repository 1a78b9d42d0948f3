"""All rules over all manifests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from inference_common.kube import ROLLOUT
from inference_plugin.config import PATH
from inference_plugin.errors import ConfigError
from inference_plugin.lint import canaries, pools, references
from inference_plugin.lint.findings import Finding, Severity, finding
from inference_plugin.lint.subject import CONFIG, Inventory, Subject, subject_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inference_plugin.lint.documents import Document

Object = dict[str, Any]
_ORDER: Final = {severity: at for at, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What manifests can't say: how long an answer and a model load take at most, in seconds."""

    longest_generation_s: float = 120.0
    model_load_s: float = 600.0


def lint(documents: Sequence[Document], assumptions: Assumptions) -> list[Finding]:
    """Everything that is found, the worst first, then by file and line; nothing twice."""
    inventory = Inventory(documents)
    found = [*references.of_objects(inventory)]
    subjects: list[Subject] = []
    for rollout in inventory.rollouts():
        found += _strategy(rollout)
        try:
            subject = subject_of(rollout, inventory)
        except ConfigError as error:
            found += _config(rollout, error)
            continue
        if subject is None:
            continue
        subjects.append(subject)
        found += references.of_rollout(subject)
        found += pools.of_rollout(subject)
        found += canaries.steps(subject)
        found += canaries.settings(
            subject,
            longest_generation_s=assumptions.longest_generation_s,
            model_load_s=assumptions.model_load_s,
        )
    found += _shared(subjects)
    ordered = sorted(found, key=lambda each: (_ORDER[each.severity], each.file, each.line))
    return list(dict.fromkeys(ordered))


def _config(rollout: Document, error: ConfigError) -> Iterator[Finding]:
    """One finding for each fault of the configuration, on its line."""
    cause = error.__cause__
    faults = cause.errors(include_url=False) if isinstance(cause, ValidationError) else [None]
    for fault, text in zip(faults, _texts(error, len(faults)), strict=False):
        loc = fault["loc"] if fault else ()
        yield finding(
            Severity.ERROR,
            "config",
            rollout,
            *(*CONFIG, *loc),
            what=text,
            why="the plugin refuses every step of this Rollout (InvalidConfig)",
            remedy="docs/plugin.md has the table of keys",
        )


def _texts(error: ConfigError, count: int) -> list[str]:
    """The faults of a ConfigError one by one, as ``parse_config`` joins them."""
    text = str(error).removesuffix(". Correct it in the Rollout's manifest.")
    parts = [part.removeprefix(f"{PATH}.") for part in text.split("; ")]
    return parts if len(parts) == count else [text] * count


def _strategy(rollout: Document) -> Iterator[Finding]:
    strategy = (rollout.obj.get("spec") or {}).get("strategy") or {}
    if "blueGreen" in strategy:
        yield finding(
            Severity.ERROR,
            "blue-green",
            rollout,
            *("spec", "strategy", "blueGreen"),
            what="the strategy is blueGreen",
            why="Argo Rollouts calls no traffic router for it: all requests move at once, to pods "
            "and pickers with cold caches",
            remedy="use strategy.canary; steps [{setWeight: 1}, {pause: {}}] come closest",
        )


def _shared(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """Two Rollouts that would manage the same weights."""
    seen: dict[tuple[str, ...], Subject] = {}
    for subject in subjects:
        for key in sorted(_claims(subject)):
            first = seen.setdefault(key, subject)
            if first is subject:
                continue
            yield finding(
                Severity.ERROR,
                "two-rollouts",
                subject.document,
                *CONFIG,
                what=f"{ROLLOUT.kind} {first.document.namespace}/{first.document.name} manages "
                f"{' '.join(part for part in key if part)} as well",
                why="the plugin refuses the second of two Rollouts on one managed reference",
                remedy="give each Rollout references, or an InferenceModel, of its own",
            )
            break


def _claims(subject: Subject) -> set[tuple[str, ...]]:
    where = subject.object_namespace
    claims: set[tuple[str, ...]] = set()
    for resource, name, _ in subject.carriers():
        carrier = (f"{resource.kind} {where}/{name}",)
        backends = [str(backend) for backend, _ in subject.backends()]
        if resource.kind == "InferenceModelRewrite" and subject.config.inferenceModelRewrite:
            rewrite = subject.config.inferenceModelRewrite
            claims.add((*carrier, rewrite.model or f"rule {rewrite.rule or 0}"))
        elif subject.backends():
            claims |= {(*carrier, backend) for backend in backends}
        elif not subject.config.routes:
            claims.add(carrier)
    return claims
