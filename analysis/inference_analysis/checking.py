"""Reading a cells file: every problem with its JSON path."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import ValidationError

from inference_analysis.errors import InputError
from inference_analysis.observations import Arm
from inference_analysis.policies import DEFAULT_MARGINS, Role
from inference_analysis.schema import CellsDocument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from inference_analysis.schema import HistogramDocument, PodDocument, PolicyDocument

_LONGEST_FOUND = 60
"""Characters of what was found that an error quotes."""


def parse(content: bytes | str, *, stable_only: bool = False) -> CellsDocument:
    """The file's content, checked; ``stable_only`` files may lack the canary.

    Raises InputError with one ``JSON path: problem`` for each thing that is wrong.
    """
    try:
        # Not model_validate_json: its own tree of a large file takes twice the memory.
        tree = json.loads(content, parse_constant=_refused)
        del content
        document = CellsDocument.model_validate(tree)
        del tree
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise InputError(f"(file): Invalid JSON: {error}") from error
        raise InputError(*(_problem(e["loc"], _words(e)) for e in error.errors())) from error
    problems = [
        *_policy_problems(document.policy),
        *_grid_problems(document),
        *_pod_problems(document, (Arm.STABLE,) if stable_only else tuple(Arm)),
        *_sticky_problems(document),
        *_background_problems(document),
        *_diverted_problems(document),
        *_prompt_problems(document),
    ]
    if problems:
        raise InputError(*problems)
    return document


def _refused(constant: str) -> float:
    """Raise ValueError: JSON has no NaN and no infinity."""
    message = f"{constant} is no number. Write null where a value is missing"
    raise ValueError(message)


def _words(error: ErrorDetails) -> str:
    """What is wrong, with what was found or the remedy."""
    if error["type"] == "extra_forbidden":
        return "no such field. Check its spelling, or drop it"
    found = error["input"]
    plain = isinstance(found, int | float | str) and len(str(found)) <= _LONGEST_FOUND
    return f"{error['msg']} (found {found!r})" if plain else error["msg"]


def _problem(location: Sequence[int | str], message: str) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"{path.lstrip('.') or '(file)'}: {message}"


def _policy_problems(policy: PolicyDocument) -> list[str]:
    problems = []
    if policy.primary_alpha > policy.family_alpha:
        problems.append(
            f"policy.primaryAlpha: {policy.primary_alpha:g} is more than familyAlpha "
            f"{policy.family_alpha:g}, of which it is a part"
        )
    if policy.load_low >= policy.load_high:
        problems.append(f"policy.loadLow: {policy.load_low:g} is not below loadHigh")
    if policy.gates and all(gate.role is Role.SECONDARY for gate in policy.gates):
        problems.append("policy.gates: none is primary, so a PASS would need nothing")
    seen: dict[tuple[str, str], int] = {}
    for i, gate in enumerate(policy.gates):
        key = (gate.metric, gate.statistic.value)
        if key in seen:
            problems.append(f"policy.gates[{i}]: the same as policy.gates[{seen[key]}]")
        seen.setdefault(key, i)
        margin = DEFAULT_MARGINS[gate.statistic] if gate.margin is None else gate.margin
        if gate.harm_margin >= margin:
            problems.append(
                f"policy.gates[{i}].harmMargin: {gate.harm_margin:g} is not below the margin "
                f"{margin:g}"
            )
    return problems


def _grid_problems(document: CellsDocument) -> list[str]:
    windows = document.windows
    if not windows.start:
        return ["windows.start: empty. Collect at least one window"]
    if len(windows.start) != len(windows.seconds):
        return [f"windows.seconds: {len(windows.seconds)} values for {len(windows.start)} windows"]
    problems = []
    for i in range(1, len(windows.start)):
        end = windows.start[i - 1] + windows.seconds[i - 1]
        if windows.start[i] < end - 1e-6:
            problems.append(
                f"windows.start[{i}]: {windows.start[i]:g} lies before the end {end:g} of the "
                "window before it. Windows ascend and do not overlap; is a clock wrong?"
            )
    return problems


def _pod_problems(document: CellsDocument, needed: Sequence[Arm]) -> list[str]:
    problems = []
    rollout = document.rollout
    if rollout.canary_hash and rollout.canary_hash == rollout.stable_hash:
        problems.append(
            f"rollout.canaryHash: equals stableHash {rollout.stable_hash!r}, so both arms are the "
            "same pods. Check the AnalysisTemplate's podTemplateHashValue args"
        )
    arms = {pod.arm for pod in document.pods}
    if document.pods or not document.prompts:
        problems += [
            f"pods: none of arm {arm.value!r} among {len(document.pods)}. Check the pods' labels"
            for arm in needed
            if arm not in arms
        ]
    seen: dict[str, int] = {}
    unshared = [i for i, pod in enumerate(document.pods) if not pod.server]
    if unshared and len(unshared) < len(document.pods):
        problems.append(
            f"pods[{unshared[0]}].server: missing, while other entries have one. Name the pod "
            "behind every entry, or behind none"
        )
    for i, pod in enumerate(document.pods):
        if pod.name in seen:
            problems.append(f"pods[{i}].name: {pod.name!r} is also pods[{seen[pod.name]}].name")
        seen.setdefault(pod.name, i)
        problems += _column_problems(pod, f"pods[{i}]", len(document.windows.start))
        for name, histogram in pod.histograms.items():
            problems += _histogram_problems(
                histogram, f"pods[{i}].histograms.{name}", len(document.windows.start)
            )
    return problems


def _sticky_problems(document: CellsDocument) -> list[str]:
    """Faults of the buckets of users; a bucket may be in both arms, a pod may not."""
    problems = []
    seen: dict[tuple[str, str], int] = {}
    width = len(document.windows.start)
    for i, bucket in enumerate(document.sticky):
        path = f"sticky[{i}]"
        key = (bucket.arm.value, bucket.name)
        if key in seen:
            problems.append(f"{path}.name: {bucket.name!r} is also sticky[{seen[key]}].name")
        seen.setdefault(key, i)
        problems += _column_problems(bucket, path, width)
        for name, histogram in bucket.histograms.items():
            problems += _histogram_problems(histogram, f"{path}.histograms.{name}", width)
    arms = {bucket.arm for bucket in document.sticky}
    problems += [
        f"sticky: no bucket of arm {arm.value!r}. Collect both, or leave sticky out"
        for arm in Arm
        if arms and arm not in arms
    ]
    return problems


def _background_problems(document: CellsDocument) -> list[str]:
    problems = []
    width = len(document.windows.start)
    for i, pod in enumerate(document.background):
        path = f"background[{i}]"
        if pod.arm is not Arm.STABLE:
            problems.append(f"{path}.arm: {pod.arm.value}; only stable has a background")
        problems += _column_problems(pod, path, width)
        for name, histogram in pod.histograms.items():
            problems += _histogram_problems(histogram, f"{path}.histograms.{name}", width)
    return problems


def _diverted_problems(document: CellsDocument) -> list[str]:
    width = len(document.windows.start)
    if document.diverted is None or len(document.diverted) == width:
        return []
    return [f"diverted: {len(document.diverted)} values for {width} windows"]


def _column_problems(pod: PodDocument, path: str, width: int) -> list[str]:
    columns = {
        "warmUp": pod.warm_up,
        "requests": pod.requests,
        "errors": pod.errors,
        "running": pod.running,
        "cacheHits": pod.cache_hits,
        "cacheQueries": pod.cache_queries,
        "kvUsage": pod.kv_usage,
        "preemptions": pod.preemptions,
        "generatedTokens": pod.generated_tokens,
        "covered": pod.covered,
    }
    problems = [
        f"{path}.{name}: {len(column)} values for {width} windows"
        for name, column in columns.items()
        if column is not None and len(column) != width
    ]
    if pod.errors is not None and pod.requests is None:
        problems.append(f"{path}.errors: given without requests. Add the requests")
    if problems or pod.errors is None or pod.requests is None:
        return problems
    for w, (x, n) in enumerate(zip(pod.errors, pod.requests, strict=True)):
        if x is not None and x > (n or 0):
            problems.append(f"{path}.errors[{w}]: {x} of {n} requests. Count failed ones in both")
    return problems


def _histogram_problems(histogram: HistogramDocument, path: str, width: int) -> list[str]:
    le = histogram.le
    if not le or any(b <= a for a, b in pairwise(le)):
        return [f"{path}.le: edges must ascend and not be empty, without +Inf (found {le})"]
    for name, column in (("count", histogram.count), ("sum", histogram.sum)):
        if len(column) != width:
            return [f"{path}.{name}: {len(column)} values for {width} windows"]
    if len(histogram.buckets) != width:
        return [f"{path}.buckets: {len(histogram.buckets)} values for {width} windows"]
    problems = []
    for w, (count, total, buckets) in enumerate(
        zip(histogram.count, histogram.sum, histogram.buckets, strict=True)
    ):
        if (count is None) != (buckets is None) or (count is None) != (total is None):
            problems.append(f"{path}.count[{w}]: count, sum and buckets must be null together")
        elif buckets is not None and len(buckets) != len(le) + 1:
            problems.append(
                f"{path}.buckets[{w}]: {len(buckets)} buckets for {len(le)} edges; "
                f"{len(le) + 1} are needed, the last for what exceeds every edge"
            )
        elif buckets is not None and sum(buckets) != count:
            problems.append(
                f"{path}.buckets[{w}]: they sum to {sum(buckets)}, count is {count}. Buckets "
                "are increments of each bucket alone, not cumulated"
            )
        elif count == 0 and total:
            problems.append(f"{path}.sum[{w}]: {total:g} without any observation")
    return problems


def _prompt_problems(document: CellsDocument) -> list[str]:
    seen: dict[tuple[str, str], int] = {}
    problems = []
    for i, prompt in enumerate(document.prompts):
        key = (prompt.measure, prompt.id)
        if key in seen:
            problems.append(f"prompts[{i}].id: {prompt.id!r} is also prompts[{seen[key]}].id")
        seen.setdefault(key, i)
    return problems
