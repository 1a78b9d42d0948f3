"""The scheduler's plugins by the names that a configuration gives them, users' own included."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from inference_picker import filters, pickers, scorers
from inference_picker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GROUP: Final = "inference_rollouts.picker_plugins"
"""Entry points of users' plugins: the name is the plugin's type, the object its class."""

BUILT_IN: Final[Mapping[str, type]] = {
    "load-cost-scorer": scorers.LoadCostScorer,
    "fewest-requests-scorer": scorers.FewestRequestsScorer,
    "queue-scorer": scorers.QueueScorer,
    "running-requests-size-scorer": scorers.RunningRequestsScorer,
    "kv-cache-utilization-scorer": scorers.KvCacheScorer,
    "prefix-cache-scorer": scorers.PrefixCacheScorer,
    "lora-affinity-scorer": scorers.LoraAffinityScorer,
    "active-request-scorer": scorers.ActiveRequestScorer,
    "load-aware-scorer": scorers.LoadAwareScorer,
    "token-load-scorer": scorers.TokenLoadScorer,
    "session-affinity-scorer": scorers.SessionAffinityScorer,
    "kv-headroom-filter": filters.HeadroomFilter,
    "decode-filter": filters.DecodeFilter,
    "label-selector-filter": filters.LabelSelectorFilter,
    "header-based-testing-filter": filters.HeaderEndpointFilter,
    "max-score-picker": pickers.MaxScorePicker,
    "random-picker": pickers.RandomPicker,
    "weighted-random-picker": pickers.WeightedRandomPicker,
    "two-choices-picker": pickers.TwoChoicesPicker,
    "round-robin-picker": pickers.RoundRobinPicker,
}

ALIASES: Final[Mapping[str, str]] = {
    "by-label-selector": "label-selector-filter",
    "queue": "queue-scorer",
    "kv-cache-scorer": "kv-cache-utilization-scorer",
}
"""Older names of upstream's plugins."""

UNNEEDED: Final[Mapping[str, str]] = {
    "single-profile-handler": "one profile is all there is",
    "approx-prefix-cache-producer": "the prefix index is always kept",
    "inflight-load-producer": "requests in flight are always counted",
    "metrics-data-source": "pages are read by `picker serve` (see its --scrape-… options)",
    "core-metrics-extractor": "the engine is told by the page itself",
    "models-data-source": "/v1/models is always read",
    "models-data-extractor": "/v1/models is always read",
    "openai-parser": "bodies are read as OpenAI's",
    "utilization-detector": "its thresholds are read from saturationDetector",
}
"""Plugins of upstream's configurations whose work is done without naming them, and why."""

KINDS: Final[Mapping[str, str]] = {"filter": "filter", "score": "scorer", "pick": "picker"}
"""The method that makes an object a plugin of a kind."""


def installed() -> dict[str, EntryPoint]:
    """Users' plugins by type."""
    return {each.name: each for each in entry_points(group=GROUP)}


def make_plugin(
    kind: str, parameters: Mapping[str, Any], *, own: Mapping[str, EntryPoint], where: str
) -> Any:
    """An instance of a plugin type. Raises ConfigError that says what is wrong and where."""
    name = ALIASES.get(kind, kind)
    found = BUILT_IN.get(name)
    if found is None:
        entry = own.get(kind)
        if entry is None:
            raise ConfigError(f"{where}: {unknown(kind, [*BUILT_IN, *UNNEEDED, *own])}")
        try:
            found = entry.load()
        except Exception as error:
            raise ConfigError(
                f"{where}: plugin {kind!r} ({entry.value}) can't be loaded: {error!r}"
            ) from error
    try:
        plugin = found(**parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: parameters of {kind}: {error}") from error
    if not kinds_of(plugin):
        raise ConfigError(
            f"{where}: {kind} has none of the methods {', '.join(KINDS)}; a plugin has one."
        )
    return plugin


def kinds_of(plugin: object) -> tuple[str, ...]:
    """``filter``, ``scorer`` and ``picker``, as far as the object is one."""
    return tuple(kind for method, kind in KINDS.items() if callable(getattr(plugin, method, None)))


def unknown(name: str, known: Iterable[str], what: str = "plugin type") -> str:
    """The sentence about a name that is none of the known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(names)}."
    return f"{what} {name!r} is not known. {hint}"
