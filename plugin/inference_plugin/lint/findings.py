"""What lint finds: one remark on one line of one manifest, with its reason and its remedy."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_plugin.lint.documents import Document


class Severity(enum.StrEnum):
    """How much it matters.

    An error is refused by the plugin, or breaks the canary; a warning hurts under load or in a
    bad moment; advice is a choice with two sides.
    """

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One remark. ``rule`` is its name in docs/plugin-operations.md; ``line`` counts from 1."""

    severity: Severity
    rule: str
    file: str
    line: int
    object: str
    what: str
    why: str
    remedy: str

    def as_json(self) -> dict[str, Any]:
        """The finding with plain values."""
        return asdict(self) | {"severity": self.severity.value}


def finding(
    severity: Severity,
    rule: str,
    document: Document,
    *place: str | int,
    what: str,
    why: str,
    remedy: str,
) -> Finding:
    """A finding at a field of a document."""
    return Finding(
        severity=severity,
        rule=rule,
        file=document.file,
        line=document.line(*place),
        object=document.title,
        what=what,
        why=why,
        remedy=remedy,
    )
