"""From a Prometheus server to a cells file: what `capture`, `run` and `serve` have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inference_analysis.aliases import UP
from inference_analysis.capturing import captured
from inference_analysis.observations import Arm
from inference_analysis.schema import SCHEMA
from inference_analysis.series import series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_analysis.aliases import Family
    from inference_analysis.arms import Arms
    from inference_analysis.capture_settings import CaptureSettings
    from inference_analysis.capturing import Captured
    from inference_analysis.prometheus import Prometheus


def collected(
    server: Prometheus, arms: Arms, families: Sequence[Family], settings: CaptureSettings
) -> Captured:
    """The cells of both arms: one query for each metric and arm.

    Raises PrometheusError and InputError.
    """
    grid = settings.grid
    answers = {
        (arm, family.metric): series(
            server.samples(arms.selector(arm, family), since_s=grid.since_s, until_s=grid.end_s)
        )
        for family in (*families, UP)
        for arm in Arm
    }
    found = captured(answers, families, settings)
    return replace(found, notes=(*server.notes, *found.notes))


def cells_document(
    arms: Arms, found: Captured, *, look: Mapping[str, Any], policy: Mapping[str, Any], ledger: Any
) -> dict[str, Any]:
    """The JSON values of a cells file (docs/statistics.md)."""
    return {
        "schema": SCHEMA,
        "rollout": {
            "namespace": arms.namespace,
            "name": arms.rollout,
            "canaryHash": arms.canary_hash,
            "stableHash": arms.stable_hash,
        },
        "look": dict(look),
        "policy": dict(policy),
        "ledger": ledger,
        "windows": found.windows,
        "pods": found.pods,
    }
