"""Requests that the canary should have had, and whose users were kept from it.

The picker ejects servers that fail, and where a version has no other its part of the requests goes
to stable. Nobody is harmed then, and nothing is measured either: a canary that answers 500 at once
is left with a handful of failures. What it was drawn for and could not be given is counted instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis import increments as inc
from inference_analysis.beginnings import from_zero
from inference_analysis.gross_harm import GrossHarm, error_limit
from inference_analysis.observations import Requests
from inference_analysis.series import table, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.increments import Grid
    from inference_analysis.observations import Observations
    from inference_analysis.series import Series


def diverted(
    found: Sequence[Series], others: Sequence[Series], grid: Grid
) -> list[int | None] | None:
    """Diverted requests by window, over all pickers; None where there were none.

    ``others`` are further series of the pickers, which tell when these were scraped.
    """
    if not found:
        return None
    filled, _ = from_zero([found, others], grid)
    kept, _ = targets(filled)
    tables = [table(target, lambda _: "value") for target in kept]
    total = inc.together([inc.increments(each, grid) for each in tables], tables, grid)[:, 0]
    return [None if np.isnan(value) else round(float(value)) for value in total]


def diverted_limit(observations: Observations, *, limit: float, least: int) -> GrossHarm | None:
    """The rule of `error_limit`, with diverted requests as failed ones of the canary."""
    requests, lost = observations.requests, observations.diverted
    if requests is None or lost is None or not lost.any():
        return None
    check = error_limit(
        Requests(
            total=np.vstack([requests.total, lost]), errors=np.vstack([requests.errors, lost])
        ),
        np.vstack([observations.usable, np.ones_like(lost, dtype=np.bool_)]),
        np.append(observations.canary, True),
        limit=limit,
        least=least,
    )
    if check is None:
        return None
    return replace(
        check,
        check="ejected",
        text=f"{check.observed:.1%} of the requests drawn for the canary failed, or went to stable "
        f"because all of its servers are ejected ({lost.sum():.0f}); {limit:.0%} in 3 windows "
        "running is gross harm",
    )
