"""The priors file: what `calibrate` learnt about pods, for `evaluate` and `plan`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from inference_analysis.errors import InputError
from inference_analysis.schema import PriorDocument

if TYPE_CHECKING:
    from pathlib import Path

    from inference_analysis.schema import PolicyDocument, WindowsDocument

SCHEMA: Final = "inference-rollouts.io/analysis-priors/v1"
ALIKE: Final = 2.0
"""A run longer or shorter by more than this factor sees other differences between pods."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class MetricPrior(_Model):
    """One latency metric's history."""

    sd: Positive
    """Between-pod sd of the log beyond sampling noise, over ``minutes``."""
    pods: Annotated[int, Field(ge=3)]
    variation: NonNegative
    """Coefficient of variation of single requests."""


class PriorsDocument(_Model):
    """What stable history says; the schema's name ends in its version."""

    schema_: Annotated[Literal["inference-rollouts.io/analysis-priors/v1"], Field(alias="schema")]
    rollout: str = ""
    minutes: Positive
    """Length of the blocks that were measured."""
    until: NonNegative
    """End of the newest measurement, seconds since the epoch."""
    requests_per_pod_minute: Positive
    error_share: Share = 0.0
    metrics: dict[str, MetricPrior] = {}


def read(file: Path) -> PriorsDocument:
    """The file's content.

    Raises InputError for what is no priors file, OSError when it cannot be read.
    """
    try:
        return PriorsDocument.model_validate(json.loads(file.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "(file)"
        raise InputError(
            f"--priors {file}: {where}: {first['msg']}. Write the file with `analysis calibrate`"
        ) from error
    except ValueError as error:
        raise InputError(f"--priors {file}: no JSON: {error}") from error


def written(document: PriorsDocument) -> str:
    """The file's text; equal values give equal bytes."""
    plain = document.model_dump(mode="json", by_alias=True)
    return json.dumps(plain, indent=2, sort_keys=True, allow_nan=False) + "\n"


def applied(
    policy: PolicyDocument, learnt: PriorsDocument, windows: WindowsDocument
) -> tuple[PolicyDocument, tuple[str, ...]]:
    """The policy with the priors that it does not set itself, and remarks.

    Priors of runs of another length are left out: pods that drift differ more over short runs.
    """
    minutes = sum(windows.seconds) / 60.0
    if not learnt.minutes / ALIKE <= minutes <= learnt.minutes * ALIKE:
        remark = (
            f"priors left out: learnt over {learnt.minutes:g} minutes, this file has "
            f"{minutes:.3g}. Calibrate with --minutes {minutes:.0f}"
        )
        return policy, (remark,)
    found = {
        name: PriorDocument(sd=each.sd, pods=each.pods) for name, each in learnt.metrics.items()
    }
    return policy.model_copy(update={"priors": found | policy.priors}), ()
