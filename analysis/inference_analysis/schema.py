"""The cells file's schema. docs/statistics.md describes every field.

The schema's name ends in its version; a file of another version is refused.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from inference_analysis.ledgers import LookKind
from inference_analysis.observations import QUALITY, Arm
from inference_analysis.policies import Mode, Role, Statistic

SCHEMA: Final = "inference-rollouts.io/analysis-cells/v1"
LEDGER_SCHEMA: Final = "inference-rollouts.io/analysis-ledger/v1"

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
OpenShare = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=False
    )


class WindowsDocument(_Model):
    """The time grid that all pods share."""

    start: list[NonNegative]
    seconds: list[Positive]


class HistogramDocument(_Model):
    """One pod's increments of one metric; null where there is no data."""

    le: list[Positive]
    count: list[Count | None]
    sum: list[NonNegative | None]
    buckets: list[list[Count] | None]


class PodDocument(_Model):
    """One pod."""

    name: Annotated[str, Field(min_length=1)]
    arm: Arm
    node: str = ""
    hardware: str = ""
    server: str = ""
    warm_up: list[bool] | None = None
    histograms: dict[str, HistogramDocument] = {}
    requests: list[Count | None] | None = None
    errors: list[Count | None] | None = None
    running: list[NonNegative | None] | None = None
    cache_hits: list[NonNegative | None] | None = None
    cache_queries: list[NonNegative | None] | None = None
    kv_usage: list[Share | None] | None = None
    preemptions: list[NonNegative | None] | None = None
    generated_tokens: list[NonNegative | None] | None = None
    covered: list[Count | None] | None = None


class PromptDocument(_Model):
    """One prompt's scores on both versions."""

    id: Annotated[str, Field(min_length=1)]
    topic: str = ""
    weight: Positive = 1.0
    measure: Annotated[str, Field(min_length=1)] = QUALITY
    canary: Annotated[list[Share], Field(min_length=1)]
    stable: Annotated[list[Share], Field(min_length=1)]
    text: str = ""
    canary_answer: str = ""
    stable_answer: str = ""
    canary_reason: str = ""
    stable_reason: str = ""


class GateDocument(_Model):
    """One gate of the policy."""

    metric: str
    statistic: Statistic
    role: Role = Role.PRIMARY
    margin: Positive | None = None
    harm_margin: NonNegative = 0.0


class PriorDocument(_Model):
    """Between-pod sd from history."""

    sd: Positive
    pods: Annotated[int, Field(ge=3)]


class LimitDocument(_Model):
    """An absolute limit."""

    metric: str
    seconds: Positive
    share: OpenShare


class PolicyDocument(_Model):
    """All settings; each has a default."""

    mode: Mode = Mode.GUARD
    gates: list[GateDocument] = []
    family_alpha: OpenShare = 0.04
    primary_alpha: OpenShare = 0.03
    pass_alpha: OpenShare = 0.05
    reserve: OpenShare = 0.2
    step_confidence: OpenShare = 0.90
    step_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    gross_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.5
    gross_alpha: OpenShare = 0.005
    gross_requests: Annotated[int, Field(ge=20)] = 50
    gross_metrics: list[str] = ["ttft", "itl", "e2e"]
    gross_error_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    gross_error_alpha: OpenShare = 0.005
    error_limit: OpenShare = 0.25
    limits: list[LimitDocument] = []
    priors: dict[str, PriorDocument] = {}
    tail_edges: dict[str, Positive] = {}
    confirm_single_pod: bool = False
    pool_bias: NonNegative = 0.15
    load_low: Positive = 0.7
    load_high: Positive = 1.4


class LookDocument(_Model):
    """The look that is asked for."""

    id: Annotated[str, Field(min_length=1)]
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    aborted_at: NonNegative = 0.0
    acknowledged_epoch: Count = 0


class PastLookDocument(_Model):
    """A look that was taken."""

    id: str
    kind: LookKind
    fraction: Annotated[float, Field(gt=0, le=1)]
    until: NonNegative
    slot: Count = 0
    pass_use: Count = 0
    verdict: str = ""


class SegmentDocument(_Model):
    """Looks under one plan."""

    epoch: Annotated[int, Field(ge=1)]
    since: NonNegative
    policy: str
    budget: Share
    start: Share = 0.0
    looks: list[PastLookDocument] = []


class LedgerDocument(_Model):
    """All earlier looks, as the last verdict returned them."""

    schema_: Annotated[Literal["inference-rollouts.io/analysis-ledger/v1"], Field(alias="schema")]
    segments: list[SegmentDocument] = []
    tail_edges: dict[str, Positive] = {}


class RolloutDocument(_Model):
    """Which rollout this is; only shown, but equal hashes are refused."""

    namespace: str = ""
    name: str = ""
    canary_hash: str = ""
    stable_hash: str = ""


class CellsDocument(_Model):
    """The whole file."""

    schema_: Annotated[Literal["inference-rollouts.io/analysis-cells/v1"], Field(alias="schema")]
    rollout: RolloutDocument = RolloutDocument()
    look: LookDocument
    policy: PolicyDocument = PolicyDocument()
    ledger: LedgerDocument | None = None
    windows: WindowsDocument
    pods: list[PodDocument]
    prompts: list[PromptDocument] = []
    sticky: list[PodDocument] = []
    background: list[PodDocument] = []
    diverted: list[Count | None] | None = None
    display: dict[str, str] = {}
