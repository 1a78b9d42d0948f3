"""Arms that only the picker can tell apart: LoRA adapters, and versions inside one pool.

A model server has no adapter label on its latencies, and both adapters run on the same pods. The
picker's series have both: ``target_model_name`` and ``endpoint``, the pod that served.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from inference_analysis.aliases import Kind, picker_families
from inference_analysis.arms import quoted
from inference_analysis.errors import InputError
from inference_analysis.observations import Arm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from inference_analysis.aliases import Family
    from inference_analysis.increments import Grid
    from inference_analysis.series import Series

POD_LABEL: Final = "pod"
"""Under which `by_pod` finds the pod, once `PickerArms` has put the endpoint there."""
DIVERTED: Final = "inference_picker_share_unmet_total"
CONTROL_SUFFIX: Final = "-control"
_BIASED: Final = (
    "the reference has another share of the traffic, and prefix caches are kept by adapter. Load "
    "the stable adapter a second time as {control} with the canary's share"
)
_UNMATCHED: Final = (
    "the picker's control arm had no pods of its own, as many as the canary's (sample "
    "control-unmatched): fewer pods even out less. More stable pods give it some"
)
_UNMATCHED_SAMPLE: Final = "control-unmatched"
_ADDRESS: Final = re.compile(r"(?:[0-9.]+|\[.*\]):[0-9]+")
_DRAWN: Final = frozenset({"canary", "control"})
_UNKNOWN: Final = frozenset({"", "other"})


class PickerBy(StrEnum):
    """What tells an arm in the picker's series."""

    ADAPTERS = "adapters"
    VERSIONS = "versions"


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerArms:
    """Canary and reference in the picker's series.

    ``adapters``: requests to ``canary_adapter``, and to the control alias of ``stable_adapter``.
    ``versions``: requests to pods of the canary's hash, and the control sample of stable's.

    Raises InputError for names that are empty or equal.
    """

    namespace: str
    rollout: str
    by: PickerBy
    canary_hash: str = ""
    stable_hash: str = ""
    canary_adapter: str = ""
    stable_adapter: str = ""
    control_adapter: str = ""
    """The second alias of the stable adapter; by default its name and ``-control``."""
    pool: str = ""
    """The InferencePool, as NAME or NAMESPACE/NAME; needed where several have these names."""
    with_control: bool = True
    """Without one the stable adapter itself is the reference, and TTFT is for display only."""
    namespace_label: str = "namespace"

    def __post_init__(self) -> None:
        if self.by is PickerBy.ADAPTERS:
            pair = (
                ("--canary-adapter", self.canary_adapter),
                ("--stable-adapter", self.stable_adapter),
            )
            what = "the name under which the adapter is served (target model name)"
        else:
            pair = (("--canary-hash", self.canary_hash), ("--stable-hash", self.stable_hash))
            what = "a pod-template-hash (valueFrom.podTemplateHashValue: Latest or Stable)"
        problems = [f"{option}: empty. Expected {what}" for option, value in pair if not value]
        if not problems and pair[0][1] == pair[1][1]:
            problems.append(
                f"{pair[0][0]} {pair[0][1]!r}: equals {pair[1][0]}, so both arms are the same "
                "requests. At the first deployment there is nothing to compare; else check the args"
            )
        if not self.namespace or not self.rollout:
            problems.append("--namespace and --rollout: expected both")
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", self.namespace_label):
            problems.append(f"label {self.namespace_label!r}: not a Prometheus label name")
        if problems:
            raise InputError(*problems)

    @property
    def families(self) -> tuple[Family, ...]:
        """The series that are asked for."""
        return picker_families()

    @property
    def reference(self) -> str:
        """The adapter that the canary is compared with."""
        if not self.with_control:
            return self.stable_adapter
        return self.control_adapter or self.stable_adapter + CONTROL_SUFFIX

    @property
    def display(self) -> Mapping[str, str]:
        """Metrics that decide nothing, with the reason."""
        if self.by is PickerBy.VERSIONS or self.with_control:
            return {}
        reason = _BIASED.format(control=self.stable_adapter + CONTROL_SUFFIX)
        return {"ttft": reason, "e2e": reason}

    def display_of(self, *, unmatched: bool) -> Mapping[str, str]:
        """The same, also where the control arm was not comparable for some of the time."""
        biased = {"ttft": _UNMATCHED, "e2e": _UNMATCHED} if unmatched else {}
        return {**biased, **self.display}

    def is_unmatched(self, found: Iterable[Series], grid: Grid) -> bool:
        """Whether requests of the windows came to a control arm that the picker marked."""
        if self.by is PickerBy.ADAPTERS:
            return False
        return any(
            item.labels.get("version") == self.stable_hash
            and item.labels.get("sample") == _UNMATCHED_SAMPLE
            and _grew(item, grid)
            for item in found
        )

    @property
    def shared(self) -> Mapping[Arm, str] | None:
        """What each arm's entries are called on pods that both arms share; None: none are."""
        if self.by is PickerBy.VERSIONS:
            return None
        return {Arm.CANARY: self.canary_adapter, Arm.STABLE: self.reference}

    def selector(self, arm: Arm, family: Family) -> str:
        """PromQL of all series of a family on the arm's requests.

        Latencies without pods that warm up. A failure counts from the first request on: a server
        that fails is ejected, and warms up whenever it is tried again.
        """
        matchers = [
            f"__name__=~{quoted(family.pattern())}",
            f"{self.namespace_label}={quoted(self.namespace)}",
        ]
        if family.kind is not Kind.PICKED:
            matchers.append('phase!="warmup"')
        if self.by is PickerBy.ADAPTERS:
            name = self.canary_adapter if arm is Arm.CANARY else self.reference
            matchers.append(f"target_model_name={quoted(name)}")
        elif arm is Arm.CANARY:
            matchers.append(f"version={quoted(self.canary_hash)}")
        else:
            matchers.append(f"version={quoted(self.stable_hash)}")
        return "{" + ",".join(matchers) + "}"

    def diverted_selector(self) -> str:
        """PromQL of the requests that the canary's share lost to its servers' ejection."""
        matchers = (
            f"__name__={quoted(DIVERTED)}",
            f"{self.namespace_label}={quoted(self.namespace)}",
            f"version={quoted(self.canary_hash)}",
            'reason="ejected"',
        )
        return "{" + ",".join(matchers) + "}"

    def of_pool(self, found: Iterable[Series]) -> list[Series]:
        """The series of the pool that is meant; all where none is named."""
        if not self.pool:
            return list(found)
        name = self.pool if "/" in self.pool else f"{self.namespace}/{self.pool}"
        return [item for item in found if _own(item, "pool") == name]

    def check_pools(self, found: Iterable[Series]) -> None:
        """Raises InputError where the series are of several pools: they would be added up."""
        pools = sorted({_own(item, "pool") for item in found} - {""})
        if len(pools) > 1:
            raise InputError(
                f"The picker's series of {self.rollout} are of {len(pools)} pools: "
                f"{', '.join(pools)}. Name the one that is meant: arms.pool in the template, "
                "--pool on the command line"
            )

    def remedy(self) -> str:
        """What to do when an arm has no series."""
        if self.by is PickerBy.ADAPTERS:
            return (
                f"Check that the picker is scraped in namespace {self.namespace}, that requests "
                f"reach {self.canary_adapter} and {self.reference}, and that the latter is a "
                f"target with the canary's weight (a second alias of {self.stable_adapter})"
            )
        return (
            f"Check that the picker is scraped in namespace {self.namespace} and enforces the "
            "shares of these versions (docs/picker.md)"
        )

    def of_pods(self, found: Iterable[Series]) -> list[Series]:
        """The series with the pod that served under ``pod``; those without one are left out."""
        return [
            replace(item, labels={**item.labels, POD_LABEL: pod})
            for item in found
            if (pod := _pod(item)) not in _UNKNOWN
        ]

    def of_sample(self, found: Iterable[Series], *, background: bool) -> list[Series]:
        """Stable's background, or what is to be compared.

        The rest of stable is no reference: a small part of a pool evens out less than the whole.
        """
        if self.by is PickerBy.ADAPTERS:
            return [] if background else list(found)
        mine = (self.stable_hash, "background")
        return [
            item
            for item in found
            if ((item.labels.get("version"), item.labels.get("sample")) == mine) is background
        ]

    def of_traffic(self, found: Sequence[list[Series]]) -> list[list[Series]]:
        """All series of one arm without those of the analysis' own prompts.

        They name an adapter themselves, which the picker counts as background. Where it has drawn
        others for the canary or its control, these are the arm; a reference that is stable itself,
        or a picker that has no samples, has nothing else.
        """
        if self.by is not PickerBy.ADAPTERS:
            return list(found)
        samples = {item.labels.get("sample") for part in found for item in part}
        if not samples & _DRAWN:
            return list(found)
        return [[i for i in part if i.labels.get("sample") != "background"] for part in found]

    def of_users(self, found: Iterable[Series]) -> list[Series]:
        """The series of sticky users, with their bucket under ``pod``."""
        return [
            replace(item, labels={**item.labels, POD_LABEL: item.labels["bucket"]})
            for item in found
            if item.labels.get("bucket")
        ]


def _grew(item: Series, grid: Grid) -> bool:
    """Whether a counter counted between the first and the last edge of the windows."""
    before = item.values[item.times <= grid.start_s]
    within = item.values[(item.times > grid.start_s) & (item.times <= grid.end_s)]
    return bool(within.size) and float(within.max()) > (float(before[-1]) if before.size else 0.0)


def _pod(item: Series) -> str:
    """The pod that served: the endpoint without the port that tells engines of one pod apart.

    An endpoint that is no pod is named by its address, which stays whole.
    """
    endpoint = _own(item, "endpoint")
    return endpoint if _ADDRESS.fullmatch(endpoint) else endpoint.partition(":")[0]


def _own(item: Series, label: str) -> str:
    """The picker's label: a target's own one, as a ServiceMonitor sets it, pushes it aside."""
    return item.labels.get(f"exported_{label}") or item.labels.get(label, "")
