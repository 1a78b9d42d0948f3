"""A past rollout, looked at again as a live one would have been."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.errors import InputError
from inference_analysis.evaluation import evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.verdicts import Verdict

if TYPE_CHECKING:
    from inference_analysis.evaluation import Evaluation
    from inference_analysis.observations import Observations
    from inference_analysis.policies import Policy

MOST_LOOKS = 100


def replayed(
    observations: Observations,
    policy: Policy,
    *,
    looks: int,
    fingerprint: str,
    after_fail: bool = False,
) -> tuple[Evaluation, ...]:
    """The verdicts of ``looks`` evenly spaced looks, up to the first FAIL unless ``after_fail``.

    A look in which an arm has no data yet is left out: live, there is none before the first
    canary request. Prompts have no time, so every look sees all of them.

    Raises InputError when there are fewer windows than looks, or no look has data.
    """
    width = observations.start_s.size
    if width < looks:
        raise InputError(
            f"windows: {width} for {looks} looks. Ask for fewer --looks, or capture more windows"
        )
    ledger, found, last = Ledger(), [], None
    for number in range(1, looks + 1):
        seen = observations.windows(np.arange(width) < round(width * number / looks))
        request = LookRequest(id=f"replay-{number}", fraction=number / looks)
        try:
            evaluation = evaluate(seen, policy, request, ledger, fingerprint=fingerprint)
        except InputError as error:
            last = error
            continue
        ledger = evaluation.ledger
        found.append(evaluation)
        if evaluation.decision.verdict is Verdict.FAIL and not after_fail:
            break
    if not found:
        assert last is not None  # noqa: S101 - no look worked, so each raised
        raise last
    return tuple(found)
