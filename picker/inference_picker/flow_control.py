"""``flowControl`` of an EndpointPickerConfig: who may wait, how many, and in which order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inference_picker.errors import ConfigError
from inference_picker.plugins import unknown
from inference_picker.queueing import Band, QueueLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

STRICT: Final = "global-strict-fairness-policy"
TURNS: Final = "round-robin-fairness-policy"
OLDEST: Final = "fcfs-ordering-policy"
POLICIES: Final = (STRICT, TURNS, OLDEST)
"""llm-d-router's policies that there are here; plugins of these types may be named by bands."""

_SUFFIXES: Final = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")


def _quantity(value: object) -> object:
    """A whole number of a Kubernetes quantity, as ``1k`` or ``1Gi``."""
    if not isinstance(value, str):
        return value
    found = _QUANTITY.fullmatch(value)
    if found is None or found[2] not in _SUFFIXES:
        raise ValueError(f"{value!r} is no quantity; write 500, 1k or 1Gi")
    return int(float(found[1]) * _SUFFIXES[found[2]])


_Quantity = Annotated[int, BeforeValidator(_quantity), Field(ge=0)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Band(_Document):
    max_requests: _Quantity = Field(default=0, alias="maxRequests")
    max_bytes: _Quantity = Field(default=0, alias="maxBytes")
    fairness: str = Field(default=TURNS, alias="fairnessPolicyRef")
    ordering: str = Field(default=OLDEST, alias="orderingPolicyRef")


class _PriorityBand(_Band):
    priority: int


class FlowControl(_Document):
    """The field as it stands in the file."""

    max_requests: _Quantity = Field(default=0, alias="maxRequests")
    max_bytes: _Quantity = Field(default=0, alias="maxBytes")
    default_request_ttl: str | float = Field(default=60, alias="defaultRequestTTL")
    default_priority_band: _Band = Field(default_factory=_Band, alias="defaultPriorityBand")
    priority_bands: list[_PriorityBand] = Field(default_factory=list, alias="priorityBands")
    enable_eviction: Literal[False] = Field(default=False, alias="enableEviction")

    def limits(self, *, types: Mapping[str, str], ttl_s: float, where: str) -> QueueLimits:
        """The queue's limits. ``types`` are those of the file's plugins, by name.

        0 means what it means upstream: no limit over all bands, and the usual one of a band.
        Raises ConfigError for a policy that there is not, and a priority that stands twice.
        """
        bands: dict[int, Band] = {}
        for number, each in enumerate(self.priority_bands):
            place = f"{where}.priorityBands[{number}]"
            if each.priority in bands:
                raise ConfigError(f"{place}: priority {each.priority} has a band already.")
            bands[each.priority] = _band(each, types, place)
        return QueueLimits(
            requests=self.max_requests or None,
            bytes=self.max_bytes or None,
            ttl_s=ttl_s,
            bands=bands,
            usual=_band(self.default_priority_band, types, f"{where}.defaultPriorityBand"),
        )


def _band(band: _Band, types: Mapping[str, str], where: str) -> Band:
    fairness = _policy(band.fairness, (TURNS, STRICT), types, f"{where}.fairnessPolicyRef")
    _policy(band.ordering, (OLDEST,), types, f"{where}.orderingPolicyRef")
    usual = Band()
    return Band(
        requests=band.max_requests or usual.requests,
        bytes=band.max_bytes or usual.bytes,
        in_turn=fairness == TURNS,
    )


def _policy(name: str, known: tuple[str, ...], types: Mapping[str, str], where: str) -> str:
    found = types.get(name, name)
    if found not in known:
        raise ConfigError(f"{where}: {unknown(found, known, 'policy')}")
    return found
