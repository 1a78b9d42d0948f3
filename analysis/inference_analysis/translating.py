"""From the cells file to what the statistics work on, and the ledger back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.ledgers import Ledger, Look, LookRequest, Segment
from inference_analysis.observations import Histogram, Observations, Pod, Prompt, Requests
from inference_analysis.policies import DEFAULT_MARGINS, Gate, Limit, Policy, Prior
from inference_analysis.schema import LEDGER_SCHEMA, PolicyDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inference_analysis.observations import FloatArray
    from inference_analysis.schema import CellsDocument, LedgerDocument, LookDocument, PodDocument


def observations(document: CellsDocument) -> Observations:
    """The file's measurements as arrays.

    A cell is usable when the pod is past its warm-up and none of its series is null there. A
    series that a pod does not have at all counts as no observations.
    """
    found = _measured(document, document.pods)
    return replace(
        found,
        sticky=_measured(document, document.sticky) if document.sticky else None,
        background=_measured(document, document.background) if document.background else None,
        diverted=None
        if document.diverted is None
        else np.array([n or 0 for n in document.diverted], dtype=np.float64),
        display=MappingProxyType(dict(document.display)),
        prompts=_prompts(document),
    )


def _measured(document: CellsDocument, pods: Sequence[PodDocument]) -> Observations:
    width = len(document.windows.start)
    names = sorted({name for pod in pods for name in pod.histograms})
    with_requests = any(pod.requests is not None for pod in pods)
    usable = np.ones((len(pods), width), dtype=np.bool_)
    for i, pod in enumerate(pods):
        if pod.warm_up is not None:
            usable[i] &= ~np.array(pod.warm_up, dtype=np.bool_)
        for name in names:
            if name in pod.histograms:
                usable[i] &= [c is not None for c in pod.histograms[name].count]
        if pod.requests is not None:
            usable[i] &= [n is not None for n in pod.requests]
    histograms: dict[str, Histogram] = {}
    unequal: dict[str, str] = {}
    for name in names:
        difference = _edge_difference(pods, name)
        if difference:
            unequal[name] = difference
        else:
            histograms[name] = _stacked(pods, name, width)
    return Observations(
        pods=tuple(
            Pod(
                name=pod.name,
                arm=pod.arm,
                node=pod.node,
                hardware=pod.hardware,
                server=pod.server,
            )
            for pod in pods
        ),
        start_s=np.array(document.windows.start, dtype=np.float64),
        seconds=np.array(document.windows.seconds, dtype=np.float64),
        usable=usable,
        histograms=MappingProxyType(histograms),
        unequal_edges=MappingProxyType(unequal),
        requests=Requests(
            total=_column(pods, width, lambda pod: pod.requests, 0.0),
            errors=_column(pods, width, lambda pod: pod.errors, 0.0),
        )
        if with_requests
        else None,
        running=_optional(pods, width, lambda pod: pod.running, np.nan),
        cache_hits=_optional(pods, width, lambda pod: pod.cache_hits, 0.0),
        cache_queries=_optional(pods, width, lambda pod: pod.cache_queries, 0.0),
        kv_usage=_optional(pods, width, lambda pod: pod.kv_usage, np.nan),
        preemptions=_optional(pods, width, lambda pod: pod.preemptions, 0.0),
        generated_tokens=_optional(pods, width, lambda pod: pod.generated_tokens, np.nan),
        covered=_optional(pods, width, lambda pod: pod.covered, 0.0),
    )


def _prompts(document: CellsDocument) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(
            id=p.id,
            canary=tuple(p.canary),
            stable=tuple(p.stable),
            topic=p.topic,
            weight=p.weight,
            measure=p.measure,
            text=p.text,
            canary_answer=p.canary_answer,
            stable_answer=p.stable_answer,
            canary_reason=p.canary_reason,
            stable_reason=p.stable_reason,
        )
        for p in document.prompts
    )


def _edge_difference(pods: Sequence[PodDocument], name: str) -> str:
    """What differs between the bucket edges of one metric, or nothing."""
    edges: dict[tuple[float, ...], str] = {}
    for pod in pods:
        if name in pod.histograms:
            edges.setdefault(tuple(pod.histograms[name].le), pod.name)
    if len(edges) < 2:  # noqa: PLR2004 - nothing to compare
        return ""
    shown = ", ".join(f"{pod}: {len(le)} edges up to {le[-1]:g}" for le, pod in edges.items())
    return f"bucket edges differ ({shown}); give both versions the same buckets"


def _stacked(pods: Sequence[PodDocument], name: str, width: int) -> Histogram:
    le = next(pod.histograms[name].le for pod in pods if name in pod.histograms)
    count = np.zeros((len(pods), width))
    total = np.zeros((len(pods), width))
    buckets = np.zeros((len(pods), width, len(le) + 1), dtype=np.int32)
    empty = [0] * (len(le) + 1)
    for i, pod in enumerate(pods):
        histogram = pod.histograms.get(name)
        if histogram is not None:
            count[i] = [c or 0 for c in histogram.count]
            total[i] = [s or 0.0 for s in histogram.sum]
            buckets[i] = [b or empty for b in histogram.buckets]
    return Histogram(le=np.array(le, dtype=np.float64), count=count, sum=total, buckets=buckets)


def _column(
    pods: Sequence[PodDocument],
    width: int,
    field: Callable[[PodDocument], Sequence[float | None] | None],
    absent: float,
) -> FloatArray:
    values = np.full((len(pods), width), absent)
    for i, pod in enumerate(pods):
        column = field(pod)
        if column is not None:
            values[i] = [absent if value is None else value for value in column]
    return values


def _optional(
    pods: Sequence[PodDocument],
    width: int,
    field: Callable[[PodDocument], Sequence[float | None] | None],
    absent: float,
) -> FloatArray | None:
    if all(field(pod) is None for pod in pods):
        return None
    return _column(pods, width, field, absent)


def policy(document: PolicyDocument) -> Policy:
    """The policy with its margins filled in."""
    fields = {
        name: getattr(document, name)
        for name in PolicyDocument.model_fields
        if name not in {"gates", "limits", "priors", "gross_metrics", "tail_edges"}
    }
    return Policy(
        **fields,
        gates=tuple(
            Gate(
                metric=gate.metric,
                statistic=gate.statistic,
                role=gate.role,
                margin=DEFAULT_MARGINS[gate.statistic] if gate.margin is None else gate.margin,
                harm_margin=gate.harm_margin,
            )
            for gate in document.gates
        ),
        gross_metrics=tuple(document.gross_metrics),
        limits=tuple(
            Limit(metric=limit.metric, seconds=limit.seconds, share=limit.share)
            for limit in document.limits
        ),
        priors=MappingProxyType(
            {name: Prior(sd=p.sd, pods=p.pods) for name, p in document.priors.items()}
        ),
        tail_edges=MappingProxyType(dict(document.tail_edges)),
    )


def fingerprint(document: PolicyDocument) -> str:
    """Twelve hexadecimal digits that change with any setting."""
    text = json.dumps(document.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def look(document: LookDocument) -> LookRequest:
    """The look that is asked for."""
    return LookRequest(
        id=document.id,
        fraction=document.fraction,
        aborted_at_s=document.aborted_at,
        acknowledged_epoch=document.acknowledged_epoch,
    )


def ledger(document: LedgerDocument | None) -> Ledger:
    """The earlier looks."""
    if document is None:
        return Ledger()
    return Ledger(
        segments=tuple(
            Segment(
                epoch=s.epoch,
                since_s=s.since,
                policy=s.policy,
                budget=s.budget,
                start=s.start,
                looks=tuple(
                    Look(
                        id=x.id,
                        kind=x.kind,
                        fraction=x.fraction,
                        until_s=x.until,
                        slot=x.slot,
                        pass_use=x.pass_use,
                        verdict=x.verdict,
                    )
                    for x in s.looks
                ),
            )
            for s in document.segments
        ),
        tail_edges=MappingProxyType(dict(document.tail_edges)),
    )


def ledger_document(value: Ledger) -> dict[str, object]:
    """The ledger as JSON, to be given to the next look."""
    return {
        "schema": LEDGER_SCHEMA,
        "segments": [
            {
                "epoch": s.epoch,
                "since": s.since_s,
                "policy": s.policy,
                "budget": s.budget,
                "start": s.start,
                "looks": [
                    {
                        "id": x.id,
                        "kind": x.kind.value,
                        "fraction": x.fraction,
                        "until": x.until_s,
                        "slot": x.slot,
                        "passUse": x.pass_use,
                        "verdict": x.verdict,
                    }
                    for x in s.looks
                ],
            }
            for s in value.segments
        ],
        "tailEdges": dict(value.tail_edges),
    }
