"""The scheduler's configuration: upstream's EndpointPickerConfig, where it means something here.

Both API groups are read, and of each file all that configures the choice of an endpoint. What
this picker does in any case may be named and has no effect; what it can't do is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference_picker import plugins
from inference_picker.ejection import EjectionRules, rules_from
from inference_picker.errors import ConfigError
from inference_picker.flow_control import POLICIES, FlowControl
from inference_picker.pickers import MaxScorePicker
from inference_picker.prefixes import DEFAULT_CAPACITY, DEFAULT_MEMORY, PrefixIndex
from inference_picker.profiles import GUARDS, default_profile
from inference_picker.ranking import Named, Profile
from inference_picker.saturation import Thresholds
from inference_picker.scheduler import Scheduler

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from pathlib import Path
    from random import Random

    from inference_picker.queueing import QueueLimits

API_VERSIONS: Final = (
    "llm-d.ai/v1alpha1",
    "llm-d.ai/v1",
    "inference.networking.x-k8s.io/v1alpha1",
)
FLOW_CONTROL: Final = "flowControl"
_INERT_GATES: Final = ("dataLayer", "prepareDataPlugins", "enableLegacyMetrics")
EJECTION: Final = "outlier-ejection"
_PREFIX: Final = "prefix-cache-scorer"
_INDEX_PARAMETERS: Final = {"lruCapacityPerServer", "memoryEntries"}
_BLOCK_PARAMETERS: Final = {
    *("blockSize", "blockSizeTokens", "hashBlockSize", "maxPrefixBlocksToMatch"),
    *("maxPrefixTokensToMatch", "autoTune"),
}
"""Of the prefix plugins: blocks here are `prompts.BLOCK_BYTES`, whatever is asked for."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Plugin(_Document):
    type: str
    name: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class _Reference(_Document):
    plugin_ref: str = Field(alias="pluginRef")
    weight: float | None = Field(default=None, ge=0)


class _ProfileDocument(_Document):
    name: str
    plugins: list[_Reference] = Field(default_factory=list)


class _Saturation(_Document):
    queue_depth_threshold: int = Field(default=5, alias="queueDepthThreshold", gt=0)
    kv_cache_util_threshold: float = Field(default=0.8, alias="kvCacheUtilThreshold", gt=0, le=1)
    max_concurrency: int | None = Field(default=None, alias="maxConcurrency", gt=0)
    plugin_ref: str | None = Field(default=None, alias="pluginRef")
    metrics_staleness_threshold: str | None = Field(default=None, alias="metricsStalenessThreshold")


class _EndpointPickerConfig(_Document):
    api_version: str = Field(alias="apiVersion")
    kind: Literal["EndpointPickerConfig"]
    plugins: list[_Plugin] = Field(default_factory=list)
    scheduling_profiles: list[_ProfileDocument] = Field(
        default_factory=list, alias="schedulingProfiles"
    )
    feature_gates: list[str] = Field(default_factory=list, alias="featureGates")
    saturation_detector: _Saturation = Field(
        default_factory=_Saturation, alias="saturationDetector"
    )
    flow_control: FlowControl = Field(default_factory=FlowControl, alias="flowControl")
    request_handler: Any = Field(default=None, alias="requestHandler")
    data_layer: Any = Field(default=None, alias="dataLayer")
    data: Any = None
    parser: Any = None
    engine_configs: Any = Field(default=None, alias="engineConfigs")


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerConfig:
    """A configuration, checked."""

    profile: Profile = field(default_factory=default_profile)
    rules: EjectionRules = field(default_factory=EjectionRules)
    index_capacity: int = DEFAULT_CAPACITY
    index_memory: int = DEFAULT_MEMORY
    thresholds: Thresholds = field(default_factory=Thresholds)
    queue: QueueLimits | None = None
    """Limits of the queue where flow control is on."""
    notes: tuple[str, ...] = ()
    """What stands in the file and has no effect, for the user to read."""

    @property
    def hands_out_tokens(self) -> bool:
        """Whether answers carry a token by which a session comes back to its endpoint."""
        return any(
            getattr(each.plugin, "hands_out_tokens", False)
            for each in (*self.profile.filters, *self.profile.scorers)
        )

    def scheduler(self, random: Random | None = None) -> Scheduler:
        """A scheduler of this configuration, without endpoints."""
        index = PrefixIndex(capacity=self.index_capacity, memory_entries=self.index_memory)
        return Scheduler(self.profile, index=index, random=random, rules=self.rules)


def load_config(path: Path) -> PickerConfig:
    """The configuration of a file. Raises ConfigError that names the place in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    return read_config(text, where=str(path))


def read_config(
    text: str, *, where: str = "config", own: dict[str, EntryPoint] | None = None
) -> PickerConfig:
    """The configuration of a YAML text; ``own`` are users' plugins (None: the installed ones)."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: an EndpointPickerConfig is expected, found {found!r:.40}.")
    if found.get("apiVersion") not in API_VERSIONS:
        raise ConfigError(
            f"{where}: apiVersion is {found.get('apiVersion')!r}; use {API_VERSIONS[0]} "
            f"(or {', '.join(API_VERSIONS[1:])})."
        )
    try:
        document = _EndpointPickerConfig.model_validate(found)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_told(error)}") from error
    return _Reading(where, plugins.installed() if own is None else own).config(document)


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the document"
    if first["type"] == "extra_forbidden":
        models = (_EndpointPickerConfig, _Plugin, _ProfileDocument, _Reference, _Saturation)
        known = {
            info.alias or name
            for model in (*models, FlowControl)
            for name, info in model.model_fields.items()
        }
        return f"{place}: {plugins.unknown(str(first['loc'][-1]), known, 'field')}"
    return f"{place}: {first['msg']}"


class _Reading:
    """One document on its way to a `PickerConfig`."""

    def __init__(self, where: str, own: dict[str, EntryPoint]) -> None:
        self._where = where
        self._own = own
        self._notes: list[str] = []
        self._made: dict[str, Any] = {}
        self._types: dict[str, str] = {}
        self._index: dict[str, int] = {}
        self._rules = EjectionRules()

    def config(self, document: _EndpointPickerConfig) -> PickerConfig:
        for number, plugin in enumerate(document.plugins):
            self._make(plugin, f"{self._where}: plugins[{number}]")
        for name in ("request_handler", "data_layer", "data", "parser", "engine_configs"):
            if getattr(document, name) is not None:
                alias = _EndpointPickerConfig.model_fields[name].alias or name
                self._notes.append(f"{alias}: no effect here")
        for gate in document.feature_gates:
            if gate not in (FLOW_CONTROL, *_INERT_GATES):
                known = (FLOW_CONTROL, *_INERT_GATES)
                raise ConfigError(
                    f"{self._where}: featureGates: {plugins.unknown(gate, known, 'gate')}"
                )
        saturation = document.saturation_detector
        return PickerConfig(
            profile=self._profile(document),
            rules=self._rules,
            index_capacity=self._index.get("lruCapacityPerServer", DEFAULT_CAPACITY),
            index_memory=self._index.get("memoryEntries", DEFAULT_MEMORY),
            thresholds=Thresholds(
                queue_depth=saturation.queue_depth_threshold,
                kv_usage=saturation.kv_cache_util_threshold,
                in_flight=saturation.max_concurrency,
            ),
            queue=self._queue(document),
            notes=tuple(self._notes),
        )

    def _make(self, plugin: _Plugin, where: str) -> None:
        name = plugin.name or plugin.type
        if name in self._made:
            raise ConfigError(f"{where}: the name {name!r} is taken by another plugin.")
        self._types[name] = plugin.type
        parameters = dict(plugin.parameters)
        if plugin.type in POLICIES:
            self._made[name] = None
            return
        if plugin.type == EJECTION:
            try:
                self._rules = rules_from(parameters)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{where}: parameters of {EJECTION}: {error}") from error
            self._made[name] = None
            return
        if plugin.type in (_PREFIX, "approx-prefix-cache-producer"):
            self._index |= {
                key: int(parameters.pop(key)) for key in _INDEX_PARAMETERS & {*parameters}
            }
            for key in sorted(_BLOCK_PARAMETERS & {*parameters}):
                del parameters[key]
                self._notes.append(f"{name}.{key}: no effect here; blocks are of 256 bytes")
        if plugin.type in plugins.UNNEEDED:
            self._notes.append(f"{name}: not needed here, {plugins.UNNEEDED[plugin.type]}")
            self._made[name] = None
            return
        self._made[name] = plugins.make_plugin(plugin.type, parameters, own=self._own, where=where)

    def _profile(self, document: _EndpointPickerConfig) -> Profile:
        profiles = document.scheduling_profiles
        if len(profiles) > 1:
            names = ", ".join(each.name for each in profiles)
            raise ConfigError(
                f"{self._where}: schedulingProfiles: {len(profiles)} profiles ({names}) are for "
                "prefill and decode on pods of their own, which this picker can't do. Keep one."
            )
        if profiles:
            name, references = profiles[0].name, profiles[0].plugins
        else:
            # As upstream: without profiles there is one with every plugin.
            name = "default"
            references = [_Reference(pluginRef=each) for each in self._made]
        filters, scorers, chosen = list(GUARDS), [], None
        for number, each in enumerate(references):
            where = f"{self._where}: schedulingProfiles[0].plugins[{number}]"
            plugin = self._referenced(each.plugin_ref, where)
            if plugin is None:
                continue
            kinds = plugins.kinds_of(plugin)
            named = Named(
                name=each.plugin_ref,
                plugin=plugin,
                weight=1.0 if each.weight is None else each.weight,
            )
            if "filter" in kinds:
                filters.append(named)
            if "scorer" in kinds:
                scorers.append(named)
            if "picker" in kinds:
                if chosen is not None:
                    raise ConfigError(f"{where}: {chosen.name} is the profile's picker already.")
                chosen = named
        if not scorers and chosen is None:
            default = default_profile()
            return Profile(
                name=name, filters=tuple(filters), scorers=default.scorers, picker=default.picker
            )
        picker = chosen or Named(name="max-score-picker", plugin=MaxScorePicker())
        return Profile(name=name, filters=tuple(filters), scorers=tuple(scorers), picker=picker)

    def _referenced(self, name: str, where: str) -> Any:
        if name not in self._made:
            raise ConfigError(f"{where}: {plugins.unknown(name, self._made, 'plugin')}")
        return self._made[name]

    def _queue(self, document: _EndpointPickerConfig) -> QueueLimits | None:
        if FLOW_CONTROL not in document.feature_gates:
            return None
        flow = document.flow_control
        where = f"{self._where}: flowControl"
        return flow.limits(
            types=self._types,
            ttl_s=seconds(flow.default_request_ttl, f"{where}.defaultRequestTTL"),
            where=where,
        )


_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: str | float, where: str) -> float:
    """Seconds of a number or of a Go duration with one unit, as ``60s``. Raises ConfigError."""
    if isinstance(value, (int, float)):
        return float(value)
    number = value.rstrip("mhs")
    try:
        return float(number) * _UNITS[value[len(number) :]]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{where}: {value!r} is no duration; write 60s or 500ms.") from error
