"""From what Prometheus answered to a cells file. No network, and no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from inference_analysis.aliases import UP, Kind
from inference_analysis.errors import InputError
from inference_analysis.observations import Arm
from inference_analysis.pod_cells import pod_cells
from inference_analysis.pod_series import by_pod

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_analysis.aliases import Family
    from inference_analysis.capture_settings import CaptureSettings
    from inference_analysis.pod_series import PodSeries
    from inference_analysis.series import Series

Answers = dict[tuple[Arm, str], "Sequence[Series]"]
Found = dict[Arm, dict[str, dict[str, "PodSeries"]]]
_DECIDING: Final = frozenset({Kind.HISTOGRAM, Kind.REQUESTS, Kind.PICKED})
_LEAST_SCRAPES: Final = 2
"""A window shorter than this many scrape intervals says more about scrapes than about servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """Windows and pods of a cells file, and what the reader should know about them."""

    windows: dict[str, list[float]]
    pods: list[dict[str, Any]]
    notes: tuple[str, ...]
    sticky: tuple[dict[str, Any], ...] = ()
    """The same by bucket of users, where users stick to a version."""
    background: tuple[dict[str, Any], ...] = ()
    """Stable's pods with their requests beside a matched control."""
    diverted: list[int | None] | None = None
    """Requests that were drawn for the canary while all its servers were ejected, by window."""
    unmatched: bool = False
    """Whether the picker marked the control arm as not comparable."""


def captured(
    answers: Mapping[tuple[Arm, str], Sequence[Series]],
    families: Sequence[Family],
    settings: CaptureSettings,
) -> Captured:
    """The cells of both arms; ``answers`` is by arm and metric.

    Raises InputError for data that cannot be used, with the remedy.
    """
    found: Found = {
        arm: {
            family.metric: by_pod(
                answers[arm, family.metric],
                family,
                pod_label=settings.pod_label,
                error_reasons=settings.error_reasons,
            )
            for family in families
        }
        for arm in settings.arms
    }
    used, notes = _comparable(found, families, settings)
    _check_scrapes(found, settings)
    pods = []
    for arm in settings.arms:
        names = sorted({pod for family in used for pod in found[arm][family.metric]})
        written = []
        for name in names:
            of_pod = {
                family.metric: found[arm][family.metric][name]
                for family in used
                if name in found[arm][family.metric]
            }
            cells, about = pod_cells(name, arm, of_pod, used, settings)
            notes += about
            if cells is not None:
                written.append(cells)
        silent = _known(answers.get((arm, UP.metric), ()), settings) - {p["name"] for p in written}
        notes += [
            f"{arm} pod {name}: left out, Prometheus knows it but has no data of it in the windows"
            for name in sorted(silent)
        ]
        if not written:
            raise InputError(
                f"{arm} has {len(names)} pods but no window of {settings.grid.seconds:g} s with "
                "data. Wait for more scrapes, or look further back with --minutes"
            )
        if settings.shared is not None:
            written = [
                each | {"name": f"{each['name']}/{settings.shared[arm]}", "server": each["name"]}
                for each in written
            ]
        pods += written
    twice = [name for name, times in Counter(pod["name"] for pod in pods).items() if times > 1]
    if twice:
        raise InputError(
            f"pod {twice[0]} is in both arms: its labels changed on the way. Check the relabeling"
        )
    grid = settings.grid
    return Captured(
        windows={
            "start": [float(x) for x in grid.edges[:-1]],
            "seconds": [grid.seconds] * grid.width,
        },
        pods=pods,
        notes=tuple(notes),
    )


def _known(found: Sequence[Series], settings: CaptureSettings) -> set[str]:
    """Pods that had a target in the windows, scraped or not."""
    grid = settings.grid
    return {
        item.labels.get(settings.pod_label, "")
        for item in found
        if ((item.times > grid.start_s) & (item.times <= grid.end_s)).any()
    } - {""}


def _comparable(
    found: Found, families: Sequence[Family], settings: CaptureSettings
) -> tuple[list[Family], list[str]]:
    """The families that both arms have, and notes on the others."""
    for arm in settings.arms:
        if not any(found[arm].values()):
            raise InputError(f"{arm} has no series at all. {settings.no_pods}")
    used: list[Family] = []
    notes: list[str] = []
    timeless = {arm for arm in settings.arms if _has_no_latencies(found[arm], families)}
    for family in families:
        metric = family.metric
        without = [arm for arm in settings.arms if not found[arm][metric]]
        lacking = [arm.value for arm in without]
        if 0 < len(without) < len(settings.arms) and timeless.issuperset(without):
            if family.kind is Kind.HISTOGRAM:
                used.append(family)
                notes.append(
                    f"{metric}: none of {' and '.join(lacking)}, whose requests all failed, or "
                    "came while pods warmed up"
                )
        elif not lacking:
            used.append(family)
            names = {
                arm: sorted({p.name for p in found[arm][metric].values()}) for arm in settings.arms
            }
            if len(names) > 1 and names[Arm.CANARY] != names[Arm.STABLE]:
                notes.append(
                    f"{metric}: canary from {', '.join(names[Arm.CANARY])}, "
                    f"stable from {', '.join(names[Arm.STABLE])}"
                )
            copies = sum(p.duplicates for pods in found.values() for p in pods[metric].values())
            if copies:
                notes.append(f"{metric}: left out {copies} copies of targets scraped twice")
        else:
            notes.append(_left_out(family, lacking, settings))
    if not any(family.kind in _DECIDING for family in used):
        raise InputError(
            "neither a latency histogram nor request counters on both arms. If the server names "
            "them otherwise, add --alias METRIC=NAME"
        )
    return used, notes


def _left_out(family: Family, lacking: Sequence[str], settings: CaptureSettings) -> str:
    """A note on a family that an arm lacks. Raises InputError where it is needed."""
    metric = family.metric
    if metric in settings.required or (
        len(lacking) < len(settings.arms) and family.kind in _DECIDING
    ):
        expected = ", ".join([*family.full_names, *(family.shown + name for name in family.names)])
        raise InputError(
            f"{metric}: no series on {' and '.join(lacking)} (looked for {expected}). If the "
            f"server names it otherwise, add --alias {metric}=NAME"
        )
    return f"{metric}: left out, no series on {' and '.join(lacking)}"


def _check_scrapes(found: Found, settings: CaptureSettings) -> None:
    """Refuse windows too short for the scrapes, and data that has stopped to come."""
    grid = settings.grid
    for arm in settings.arms:
        tables = [t for pods in found[arm].values() for pod in pods.values() for t in pod.tables]
        interval = max((t.interval_s for t in tables), default=0.0)
        if grid.seconds < _LEAST_SCRAPES * interval:
            raise InputError(
                f"--window {grid.seconds:g}: {arm} is scraped every {interval:.3g} s. Use at "
                f"least {_LEAST_SCRAPES * interval:.0f} s"
            )
        newest = max((float(t.times[-1]) for t in tables if t.times.size), default=0.0)
        if grid.end_s - newest > max(2 * grid.seconds, 60.0):
            raise InputError(
                f"the newest sample of {arm} is {grid.end_s - newest:.0f} s older than the end of "
                "the last window. Check that its pods run and are scraped and that the clocks "
                "agree; to look at the past use --end"
            )


def _has_no_latencies(
    found: Mapping[str, Mapping[str, object]], families: Sequence[Family]
) -> bool:
    """Whether the picker counts requests of an arm, but none whose times are latencies."""
    picked = [family.metric for family in families if family.kind is Kind.PICKED]
    return any(found[metric] for metric in picked) and not found.get("e2e")


def captured_background(
    answers: Mapping[tuple[Arm, str], Sequence[Series]],
    families: Sequence[Family],
    settings: CaptureSettings,
) -> tuple[dict[str, Any], ...]:
    """The cells of stable's background; nothing where there is none."""
    if not any(answers[Arm.STABLE, family.metric] for family in families):
        return ()
    deciding = [family for family in families if family.kind in _DECIDING]
    alone = replace(settings, arms=(Arm.STABLE,), shared=None, required=frozenset())
    try:
        return tuple(captured(answers, deciding, alone).pods)
    except InputError:  # too little of it, which is as good as none: the control is still there
        return ()


def captured_users(
    answers: Mapping[tuple[Arm, str], Sequence[Series]],
    families: Sequence[Family],
    settings: CaptureSettings,
) -> tuple[dict[str, Any], ...]:
    """The cells of buckets of users; ``answers`` have the bucket where pods' have the pod.

    Nothing where no user sticks, or where an arm has none that do.
    """
    if any(not any(answers[arm, family.metric] for family in families) for arm in Arm):
        return ()
    deciding = [family for family in families if family.kind in _DECIDING]
    arms = {Arm.CANARY: "canary", Arm.STABLE: "control"}
    found = captured(answers, deciding, replace(settings, shared=arms))
    return tuple(
        {key: value for key, value in each.items() if key != "server"} | {"name": each["server"]}
        for each in found.pods
    )
