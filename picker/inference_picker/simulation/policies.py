"""The policies that a simulation compares, each a scheduler as `picker serve` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inference_picker.pickers import MaxScorePicker, RoundRobinPicker, TwoChoicesPicker
from inference_picker.prefixes import PrefixIndex
from inference_picker.profiles import GUARDS, default_profile
from inference_picker.ranking import Named, Profile
from inference_picker.scorers import (
    FewestRequestsScorer,
    KvCacheScorer,
    PrefixCacheScorer,
    QueueScorer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_UPSTREAM_ENTRIES: Final = 10_000_000
"""llm-d-router bounds its index by pod only."""
DEFAULT: Final = "load-cost"
GO_DEFAULT: Final = "go-default"
SIMPLE: Final = ("round-robin", "two-choices", "least-requests")


class _UpstreamIndex(PrefixIndex):
    """llm-d-router's index, which believes in four times the cache that there is.

    Its blocks have at least 64 tokens, and it keeps as many of them for a pod as that has blocks
    of 16 (``minBlockSizeTokens`` and ``makeserver`` in its approximateprefix/plugin.go).
    """

    def __init__(self) -> None:
        super().__init__(memory_entries=_UPSTREAM_ENTRIES)

    def limit(self, row: int, blocks: int) -> None:
        super().limit(row, 4 * blocks)


def index_of(policy: str) -> PrefixIndex:
    """An empty prefix index as the policy of this name has it."""
    return _UpstreamIndex() if policy == GO_DEFAULT else PrefixIndex()


def _profile(name: str, picker: object, **scorers: tuple[object, float]) -> Profile:
    return Profile(
        name=name,
        filters=GUARDS,
        scorers=tuple(
            Named(name=key.replace("_", "-"), plugin=plugin, weight=weight)
            for key, (plugin, weight) in scorers.items()
        ),
        picker=Named(name="picker", plugin=picker),
    )


POLICIES: Final[dict[str, Callable[[], Profile]]] = {
    DEFAULT: default_profile,
    "round-robin": lambda: _profile("round-robin", RoundRobinPicker()),
    "two-choices": lambda: _profile(
        "two-choices", TwoChoicesPicker(), fewest_requests=(FewestRequestsScorer(), 1.0)
    ),
    "least-requests": lambda: _profile(
        "least-requests", MaxScorePicker(), fewest_requests=(FewestRequestsScorer(), 1.0)
    ),
    # The chart's default of llm-d-router (charts/routerlib/templates/_config.yaml).
    GO_DEFAULT: lambda: _profile(
        GO_DEFAULT,
        MaxScorePicker(ties="random"),
        queue=(QueueScorer(), 2.0),
        kv_cache_utilization=(KvCacheScorer(), 2.0),
        prefix_cache=(PrefixCacheScorer(), 3.0),
    ),
}
