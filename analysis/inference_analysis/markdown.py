"""A verdict document as Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_analysis.wording import effect, moment, number, share, title

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIGNS: Final = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️"}
_LONGEST_ANSWER: Final = 160
MOST_PROMPTS: Final = 3
LONGEST: Final = 60_000
"""GitHub takes 65,536 characters in a comment."""


def text(document: Mapping[str, Any]) -> str:
    """The document as GitHub-flavoured Markdown; equal documents give equal text."""
    look = document["look"]
    verdict = document["verdict"]
    lines = [
        f"### {_SIGNS[verdict]} {verdict.upper()}, {document['action']}: {_plain(title(document))}",
        "",
        *(f"- {_plain(reason)}" for reason in document["reasons"]),
        "",
        f"**Next:** {_plain(document['next'])}",
        "",
        "| gate | outcome | worse by | bounds | margin | p | finds |",
        "|---|---|--:|--:|--:|--:|--:|",
        *(_row(gate) for gate in document["gates"]),
        "",
    ]
    fired = [check for check in document["grossHarm"] if check["fired"]]
    lines += [f"- gross harm, {_plain(check['text'])}" for check in fired]
    for finding in document["findings"]:
        text = "; ".join(filter(None, (finding["text"], finding["remedy"])))
        lines.append(f"- {finding['code']} ({finding['weight']}): {_plain(text)}")
    if fired or document["findings"]:
        lines.append("")
    lines += _prompts(document)
    data = document["data"]
    lines.append(
        f"<sub>{data['canaryPods']} canary and {data['stablePods']} stable pods, {data['windows']} "
        f"windows, {data['usableCells']} of {data['cells']} cells usable · mode "
        f"{document['mode']}, {look['kind']} look at {share(look['fraction'])} of epoch "
        f"{look['epoch']} · data until {moment(look['until'])} · “finds”: the smallest worsening "
        "that the last planned look would find nine times in ten</sub>"
    )
    whole = "\n".join(lines) + "\n"
    return whole if len(whole) <= LONGEST else whole[:LONGEST] + "\n… cut off\n"


def _row(gate: Mapping[str, Any]) -> str:
    name = gate["name"] + (" (secondary)" if gate["role"] == "secondary" else "")
    if "scale" not in gate:
        return f"| {name} | {gate['outcome']} | | | | | |"
    scale = gate["scale"]
    shown = {
        key: effect(gate[key], scale)
        for key in ("estimate", "lower", "upper", "marginOnScale", "minimumDetectableEffect")
    }
    return (
        f"| {name} | {gate['outcome']} | {shown['estimate']} | "
        f"{shown['lower']} … {shown['upper']} | {shown['marginOnScale']} | {number(gate['p'])} | "
        f"{shown['minimumDetectableEffect']} |"
    )


def _prompts(document: Mapping[str, Any]) -> list[str]:
    worst = document["worstPrompts"][:MOST_PROMPTS]
    if not worst:
        return []
    return [
        "<details><summary>Worst prompts</summary>",
        "",
        "| prompt | stable | canary |",
        "|---|---|---|",
        *(
            f"| {_plain(p['id'])} | {_answer(p, 'stable')} | {_answer(p, 'canary')} |"
            for p in worst
        ),
        "",
        "</details>",
        "",
    ]


def _answer(prompt: Mapping[str, Any], arm: str) -> str:
    answer = " ".join(str(prompt[f"{arm}Answer"]).split())
    if len(answer) > _LONGEST_ANSWER:
        answer = answer[:_LONGEST_ANSWER] + "…"
    return f"{number(prompt[arm])} {_plain(answer)}".strip()


def _plain(value: str) -> str:
    """Text that means itself: no mark-up, no mention of people, no cell's end."""
    for sign in "\\`*_[]|":
        value = value.replace(sign, f"\\{sign}")
    value = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return value.replace("@", "@\u200b")
