"""Profiles that stand without a configuration."""

from __future__ import annotations

from typing import Final

from inference_picker.filters import (
    HealthFilter,
    LoadedModelFilter,
    SubsetFilter,
    VersionFilter,
)
from inference_picker.pickers import MaxScorePicker
from inference_picker.ranking import Named, Profile
from inference_picker.scorers import LoadCostScorer

GUARDS: Final = (
    Named(name="subset-filter", plugin=SubsetFilter()),
    Named(name="version-filter", plugin=VersionFilter()),
    Named(name="health-filter", plugin=HealthFilter()),
    Named(name="loaded-model-filter", plugin=LoadedModelFilter()),
)
"""Before the filters of every profile: what the gateway allows, what works, what has the model."""


def default_profile() -> Profile:
    """The least load cost."""
    return Profile(
        name="default",
        filters=GUARDS,
        scorers=(Named(name="load-cost-scorer", plugin=LoadCostScorer()),),
        picker=Named(name="max-score-picker", plugin=MaxScorePicker()),
    )
