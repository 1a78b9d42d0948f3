"""Findings as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from inference_plugin.lint.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from inference_plugin.lint.findings import Finding

_STYLE: Final = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.ADVICE: "cyan",
}


def show(findings: Sequence[Finding], objects: int, console: Console) -> None:
    """Print each finding as a paragraph of three lines, and the count."""
    for each in findings:
        head = Text()
        head.append(f"{each.file}:{each.line} ", style="bold")
        head.append(each.severity.value, style=_STYLE[each.severity])
        head.append(f" [{each.rule}] ", style="dim")
        head.append(each.object)
        console.print(head, soft_wrap=True)
        console.print(Text(f"  {each.what}: {each.why}."), soft_wrap=True)
        console.print(Text(f"  → {each.remedy}."), soft_wrap=True)
    counts = [
        f"{count} {severity.value}{'s' if count != 1 and severity is not Severity.ADVICE else ''}"
        for severity in Severity
        if (count := sum(each.severity is severity for each in findings))
    ]
    checked = f"{objects} object{'s' if objects != 1 else ''} checked"
    console.print(Text(f"{checked}: {', '.join(counts) or 'nothing to remark'}."), soft_wrap=True)
