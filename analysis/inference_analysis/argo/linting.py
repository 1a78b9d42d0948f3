"""Mistakes in AnalysisTemplates and Rollouts that make a verdict wrong without any error. Pure.

Sources: argo-rollouts v1.10 analysis/analysis.go, metricproviders/job/job.go and issues named at
the checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_analysis.argo import lint_loads
from inference_analysis.argo.lint_web import web_problems
from inference_analysis.argo.protocol import CONSECUTIVE_SUCCESS_LIMIT, COUNT, FAILURE_LIMIT
from inference_analysis.argo.settings import analysis_document, tree
from inference_analysis.errors import InputError
from inference_analysis.sizing import LEAST_PAIRS, MOST_LOOKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from inference_analysis.argo.settings import AnalysisDocument

Object = dict[str, Any]
LEAST_ARGO: Final = (1, 10)
"""Before, a terminated Job counted as Successful and promoted the canary (argo-rollouts#4602)."""
TEMPLATES: Final = frozenset({"AnalysisTemplate", "ClusterAnalysisTemplate"})
_LONGEST_METRIC: Final = 24
_HASHES: Final = {"canary-hash": "Latest", "stable-hash": "Stable"}
_TRIPLE: Final = {
    "count": COUNT,
    "failureLimit": FAILURE_LIMIT,
    "consecutiveSuccessLimit": CONSECUTIVE_SUCCESS_LIMIT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong, or may be."""

    where: str
    text: str
    fatal: bool = True
    """False: it works, and there is something to know."""


def mistakes(
    objects: Sequence[Mapping[str, Any]], *, argo: tuple[int, int] | None = None
) -> list[Mistake]:
    """Everything found in AnalysisTemplates and Rollouts; other objects are passed over."""
    found: list[Mistake] = []
    ours: dict[str, Mapping[str, Any]] = {}
    for obj in objects:
        if obj.get("kind") in TEMPLATES:
            found += _of_template(obj, argo)
            if any(_is_ours(metric) for metric in _metrics(obj)):
                ours[obj["metadata"]["name"]] = obj
    for obj in objects:
        if obj.get("kind") == "Rollout":
            found += _of_rollout(obj, ours)
    return found


def settings_in(template: Mapping[str, Any]) -> str:
    """Text of the analysis' settings in a template, or nothing."""
    for metric in _metrics(template):
        for container in _containers(metric):
            for entry in container.get("env") or []:
                if entry.get("name") == "ANALYSIS_CONFIG":
                    return str(entry.get("value", ""))
    return ""


def _values(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """The analysis' settings in a template of either provider; empty where they are no object.

    Raises InputError for text that is no YAML object.
    """
    for metric in _metrics(template):
        web = (metric.get("provider") or {}).get("web") or {}
        config = (web.get("jsonBody") or {}).get("config")
        if isinstance(config, dict):
            return config
    return tree(settings_in(template), "ANALYSIS_CONFIG")


def _metrics(template: Mapping[str, Any]) -> list[Object]:
    found: list[Object] = (template.get("spec") or {}).get("metrics") or []
    return found


def _job(metric: Mapping[str, Any]) -> Object | None:
    found: Object | None = (metric.get("provider") or {}).get("job")
    return None if found is None else (found.get("spec") or {})


def _containers(metric: Mapping[str, Any]) -> list[Object]:
    pod = ((_job(metric) or {}).get("template") or {}).get("spec") or {}
    found: list[Object] = pod.get("containers") or []
    return found


def _is_ours(metric: Mapping[str, Any]) -> bool:
    web = (metric.get("provider") or {}).get("web") or {}
    by_web = str(web.get("url", "")).endswith("/v1/analysis")
    return by_web or any(
        "run" in (container.get("args") or [])
        and any(e.get("name") == "ANALYSIS_CONFIG" for e in container.get("env") or [])
        for container in _containers(metric)
    )


def _of_template(template: Mapping[str, Any], argo: tuple[int, int] | None) -> Iterator[Mistake]:
    name = f"{template['kind']} {template['metadata']['name']}"
    metrics = _metrics(template)
    dry = {entry.get("metricName") for entry in template["spec"].get("dryRun") or []}
    for metric in metrics:
        where = f"{name}, metric {metric['name']}"
        if _job(metric) is not None:
            yield from _of_job(metric, where)
        if not _is_ours(metric):
            continue
        if len(metrics) > 1:
            others = ", ".join(str(m["name"]) for m in metrics if m is not metric)
            yield Mistake(
                where=where,
                text=f"stands beside {others}: when one of them ends, Argo Rollouts ends all. Put "
                "it into a template of its own, used in a step of its own",
            )
        if _job(metric) is not None:
            yield from _of_our_job(metric, where, argo)
        else:
            for text in web_problems(metric):
                yield Mistake(where=where, text=text)
        yield from _of_ledger(template, where, dry=bool(dry & {metric["name"], "*", ".*"}))
        given = {arg.get("name") for arg in template["spec"].get("args") or []}
        lacking = sorted(set(_HASHES) - given)
        if lacking:
            yield Mistake(where=name, text=f"spec.args lacks {' and '.join(lacking)}")


def _of_job(metric: Mapping[str, Any], where: str) -> Iterator[Mistake]:
    count, limit = metric.get("count"), int(metric.get("failureLimit") or 0)
    if limit > 0 and ((count is None and "interval" not in metric) or count == 1):
        yield Mistake(
            where=where,
            text=f"count 1 with failureLimit {limit}: a Job that fails counts as Successful "
            "(argo-rollouts#4393). Set failureLimit to 0",
        )


def _of_our_job(
    metric: Mapping[str, Any], where: str, argo: tuple[int, int] | None
) -> Iterator[Mistake]:
    if argo is not None and argo < LEAST_ARGO:
        yield Mistake(
            where=where,
            text=f"Argo Rollouts {argo[0]}.{argo[1]} takes a Job that it ended itself for "
            "Successful, and so promotes what nobody has judged. Use 1.10 or newer, or "
            "`analysis template --provider web`",
        )
    wrong = {key: metric.get(key) for key, wanted in _TRIPLE.items() if metric.get(key) != wanted}
    if wrong:
        shown = ", ".join(f"{key} is {value}" for key, value in wrong.items())
        wanted = ", ".join(f"{key}: {value}" for key, value in _TRIPLE.items())
        yield Mistake(
            where=where, text=f"{shown}: the three outcomes need {wanted} (`analysis template`)"
        )
    if metric.get("inconclusiveLimit"):
        yield Mistake(
            where=where,
            text=f"inconclusiveLimit is {metric['inconclusiveLimit']}: an ended Job would be taken "
            "for nothing. Set 0",
        )
    if len(str(metric["name"])) > _LONGEST_METRIC:
        yield Mistake(
            where=where,
            text=f"a name of more than {_LONGEST_METRIC} characters is cut in the Job's name",
        )
    spec = _job(metric) or {}
    pod = (spec.get("template") or {}).get("spec") or {}
    if pod.get("restartPolicy") != "Never" or spec.get("backoffLimit") != 0:
        yield Mistake(
            where=where,
            text="needs restartPolicy: Never and backoffLimit: 0: a repeated pod would turn "
            '"failed" into "succeeded"',
        )
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or []
    ignored = any(
        rule.get("action") == "Ignore"
        and any(c.get("type") == "DisruptionTarget" for c in rule.get("onPodConditions") or [])
        for rule in rules
    )
    if not ignored:
        yield Mistake(
            where=where,
            text="has no podFailurePolicy that ignores DisruptionTarget: a drained node would "
            "count as a failed measurement",
        )


def _of_ledger(template: Mapping[str, Any], where: str, *, dry: bool) -> Iterator[Mistake]:
    try:
        values = _values(template)
        if "prometheus" in values and "{{" not in settings_in(template):
            analysis_document(values, "ANALYSIS_CONFIG")
    except InputError as error:
        for problem in error.problems:
            yield Mistake(where=where, text=problem)
        return
    shadow = values.get("ledger") == "shadow"
    if dry and not shadow:
        yield Mistake(
            where=where,
            text="is a dry run on the live ledger: its looks would use up the error budget. Set "
            "ledger: shadow",
        )
    if shadow and not dry:
        yield Mistake(
            where=where,
            text="has ledger: shadow and is no dry run: it decides, and nothing is booked. Add it "
            "to spec.dryRun, or set ledger: live",
        )


def _of_rollout(
    rollout: Mapping[str, Any], ours: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mistake]:
    name = f"Rollout {rollout['metadata']['name']}"
    canary = (rollout["spec"].get("strategy") or {}).get("canary") or {}
    steps = canary.get("steps") or []
    used: list[tuple[str, Mapping[str, Any], int | None]] = [
        (f"{name}, step {i}", step["analysis"], i)
        for i, step in enumerate(steps)
        if "analysis" in step
    ]
    if canary.get("analysis"):
        used.append((f"{name}, background analysis", canary["analysis"], None))
    seen, looks = [], 0
    for where, analysis, index in used:
        names = [str(t.get("templateName")) for t in analysis.get("templates") or []]
        if not set(names) & set(ours):
            continue
        seen.append(index)
        if len(names) > 1:
            yield Mistake(
                where=where,
                text=f"uses {', '.join(names)} in one AnalysisRun: when one of them ends, Argo "
                "Rollouts ends all. Give each a step of its own",
            )
        yield from _of_args(analysis, where)
        template = next(ours[item] for item in names if item in ours)
        if index is not None:
            for text, fatal in lint_loads.problems(rollout, index, ttft=_by_ttft(template)):
                yield Mistake(where=where, text=text, fatal=fatal)
            looks += _by_adapters(template)
        elif _by_adapters(template):
            looks += _background_looks(template)
    if looks > MOST_LOOKS:
        yield Mistake(
            where=name,
            text=f"plans {looks} looks at adapters: where fewer than {LEAST_PAIRS} pods serve "
            f"both, windows are compared, {MOST_LOOKS} looks decide and others are inconclusive",
            fatal=False,
        )
    if None in seen and len(seen) > 1:
        yield Mistake(
            where=name,
            text="is analysed in steps and in the background: both take looks from one budget. "
            "Set background.looks to 0 there, which leaves it the checks for gross harm",
            fatal=False,
        )


def _settings(template: Mapping[str, Any]) -> AnalysisDocument | None:
    """The template's settings over the defaults; None where they are wrong, which is told."""
    elsewhere: Object = {"prometheus": {"url": "http://defaults"}}
    try:
        return analysis_document(elsewhere | dict(_values(template)))
    except InputError:
        return None


def _by_ttft(template: Mapping[str, Any]) -> bool:
    """Whether the template compares pools of pods by their time to the first token."""
    settings = _settings(template)
    if settings is None or settings.arms.by != "pods":
        return False
    gates = settings.policy.gates
    return not gates or any(gate.metric == "ttft" for gate in gates)


def _by_adapters(template: Mapping[str, Any]) -> bool:
    settings = _settings(template)
    return settings is not None and settings.arms.by == "adapters"


def _background_looks(template: Mapping[str, Any]) -> int:
    settings = _settings(template)
    return 0 if settings is None else settings.background.looks


def _of_args(analysis: Mapping[str, Any], where: str) -> Iterator[Mistake]:
    args = analysis.get("args") or []
    names = [arg.get("name") for arg in args]
    for name, source in _HASHES.items():
        if names.count(name) > 1:
            yield Mistake(
                where=where,
                text=f"arg {name} is given twice: Argo Rollouts then makes it empty. Keep one",
            )
            continue
        found = next((arg for arg in args if arg.get("name") == name), None)
        got = ((found or {}).get("valueFrom") or {}).get("podTemplateHashValue")
        if got != source:
            shown = "is missing" if found is None else f"is {got or found.get('value')!r}"
            yield Mistake(
                where=where,
                text=f"arg {name} {shown}: it must be valueFrom.podTemplateHashValue: {source}",
            )
