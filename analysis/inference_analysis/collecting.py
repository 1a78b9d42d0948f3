"""From a Prometheus server to a cells file: what `capture`, `run` and `serve` have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inference_analysis.aliases import UP
from inference_analysis.beginnings import from_zero
from inference_analysis.capturing import captured, captured_background, captured_users
from inference_analysis.diversions import diverted
from inference_analysis.picker_arms import PickerArms, PickerBy
from inference_analysis.schema import SCHEMA
from inference_analysis.series import series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_analysis.aliases import Family
    from inference_analysis.arms import Arms
    from inference_analysis.capture_settings import CaptureSettings
    from inference_analysis.capturing import Captured
    from inference_analysis.prometheus import Prometheus
    from inference_analysis.series import Series


def collected(
    server: Prometheus,
    arms: Arms | PickerArms,
    families: Sequence[Family],
    settings: CaptureSettings,
) -> Captured:
    """The cells of both arms: one query for each metric and arm.

    Raises PrometheusError and InputError.
    """
    grid = settings.grid

    def asked(selector: str) -> list[Series]:
        return series(server.samples(selector, since_s=grid.since_s, until_s=grid.end_s))

    answers = {
        (arm, family.metric): asked(arms.selector(arm, family))
        for family in (*families, UP)
        for arm in settings.arms
    }
    if not isinstance(arms, PickerArms):
        found = captured(answers, families, settings)
        return replace(found, notes=(*server.notes, *found.notes))
    measured = {key: arms.of_pool(answer) for key, answer in answers.items() if key[1] != UP.metric}
    arms.check_pools(item for answer in measured.values() for item in answer)
    answers |= measured
    answers = dict(zip(answers, from_zero(answers.values(), grid), strict=True))
    for arm in settings.arms:
        mine = [key for key in answers if key[0] is arm and key[1] != UP.metric]
        answers |= zip(mine, arms.of_traffic([answers[key] for key in mine]), strict=True)
    unmatched = any(arms.is_unmatched(answer, grid) for answer in answers.values())
    rest = {
        key: arms.of_pods(arms.of_sample(found, background=True)) for key, found in answers.items()
    }
    answers = {key: arms.of_sample(found, background=False) for key, found in answers.items()}
    found = captured(
        {key: arms.of_pods(answer) for key, answer in answers.items()}, families, settings
    )
    lost = []
    if arms.by is PickerBy.VERSIONS:
        lost = arms.of_pool(asked(arms.diverted_selector()))
    sticky = captured_users(
        {key: arms.of_users(answer) for key, answer in answers.items()}, families, settings
    )
    return replace(
        found,
        notes=(*server.notes, *found.notes),
        sticky=sticky,
        diverted=diverted(lost, [item for answer in answers.values() for item in answer], grid),
        background=captured_background(rest, families, settings),
        unmatched=unmatched,
    )


def cells_document(
    arms: Arms | PickerArms,
    found: Captured,
    *,
    look: Mapping[str, Any],
    policy: Mapping[str, Any],
    ledger: Any,
) -> dict[str, Any]:
    """The JSON values of a cells file (docs/statistics.md)."""
    document: dict[str, Any] = {
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
    if found.background:
        document["background"] = list(found.background)
    if found.sticky:
        document["sticky"] = list(found.sticky)
    if found.diverted is not None:
        document["diverted"] = found.diverted
    if isinstance(arms, PickerArms) and (display := arms.display_of(unmatched=found.unmatched)):
        document["display"] = dict(display)
    return document
