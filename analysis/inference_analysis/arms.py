"""Which pods are the canary's and which are stable's, as PromQL selectors."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from inference_analysis.errors import InputError
from inference_analysis.observations import Arm

if TYPE_CHECKING:
    from inference_analysis.aliases import Family


class PodsBy(StrEnum):
    """What tells a pod's arm."""

    LABEL = "label"
    NAME = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """The two revisions of one Rollout, and the labels that Prometheus has for pods.

    Raises InputError for hashes that are empty, equal or no label value.
    """

    namespace: str
    rollout: str
    canary_hash: str
    stable_hash: str
    by: PodsBy = PodsBy.LABEL
    hash_label: str = "rollouts_pod_template_hash"
    namespace_label: str = "namespace"
    pod_label: str = "pod"
    stable_only: bool = False
    """Whether only stable's history is wanted, so that there need be no canary."""

    def __post_init__(self) -> None:
        problems = [
            f"--{arm}-hash {value!r}: expected a pod-template-hash. An AnalysisTemplate gets it "
            f"by valueFrom.podTemplateHashValue: {source}"
            for arm, value, source in (
                ("canary", self.canary_hash, "Latest"),
                ("stable", self.stable_hash, "Stable"),
            )
            if not (self.stable_only and arm == "canary")
            and not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", value)
        ]
        if not problems and self.canary_hash == self.stable_hash:
            problems.append(
                f"--canary-hash {self.canary_hash!r}: equals --stable-hash, so both arms are the "
                "same pods. At the first deployment, or once the canary is stable, there is "
                "nothing to compare; else check the args (canary: Latest, stable: Stable)"
            )
        for option, value in (("--namespace", self.namespace), ("--rollout", self.rollout)):
            if not value:
                problems.append(f"{option}: empty")
        problems += [
            f"label {label!r}: not a Prometheus label name"
            for label in (self.hash_label, self.namespace_label, self.pod_label)
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", label)
        ]
        if problems:
            raise InputError(*problems)

    def hash(self, arm: Arm) -> str:
        """The pod-template-hash of an arm."""
        return self.canary_hash if arm is Arm.CANARY else self.stable_hash

    def selector(self, arm: Arm, family: Family) -> str:
        """PromQL of all series of a family on the arm's pods."""
        matchers = [
            f"__name__=~{quoted(family.pattern())}",
            f"{self.namespace_label}={quoted(self.namespace)}",
        ]
        if self.by is PodsBy.LABEL:
            matchers.append(f"{self.hash_label}={quoted(self.hash(arm))}")
        else:
            prefix = re.escape(f"{self.rollout}-{self.hash(arm)}-")
            # A pod's own suffix has no hyphen, so a Rollout "chat" never takes pods of "chat-b".
            matchers.append(f"{self.pod_label}=~{quoted(prefix + '[a-z0-9]+')}")
        return "{" + ",".join(matchers) + "}"

    def remedy(self) -> str:
        """What to do when an arm has no pods."""
        if self.by is PodsBy.LABEL:
            return (
                f"Check that targets carry {self.hash_label} (PodMonitor podTargetLabels: "
                "[rollouts-pod-template-hash]), or use --pods-by name"
            )
        return f"Check that targets carry {self.pod_label} and {self.namespace_label}"


def quoted(text: str) -> str:
    """A PromQL string literal; its escapes are those of Go, a superset of JSON's."""
    return json.dumps(text, ensure_ascii=False)
