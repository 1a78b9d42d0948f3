"""The filters that come with the picker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inference_picker import subsets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from inference_picker.pool import Endpoint
    from inference_picker.ranking import Mask, Pods, SchedulingRequest


class SubsetFilter:
    """Keeps what the gateway's subset hint names. A hint that names nothing keeps nothing."""

    def filter(self, request: SchedulingRequest, pods: Pods) -> Mask:
        """All without a hint."""
        if request.subset is None:
            return np.ones(len(pods), dtype=np.bool_)
        subset = subsets.Subset(request.subset)
        return _mask(pods, [subset.allows(each.address) for each in pods.endpoints])


class VersionFilter:
    """Keeps the endpoints of the version that was drawn for the request."""

    def filter(self, request: SchedulingRequest, pods: Pods) -> Mask:
        """All where no version was drawn."""
        if request.among is None:
            return np.ones(len(pods), dtype=np.bool_)
        allowed = {each.address for each in request.among}
        return _mask(pods, [each.address in allowed for each in pods.endpoints])


class LoadedModelFilter:
    """Keeps the endpoints that list the target model, if any is known to.

    Where none is, all stay: the list may be late, and an unknown name is the server's to refuse.
    """

    def __init__(self) -> None:
        """Nothing is remembered yet."""
        self._masks = _MaskMemory()

    def filter(self, request: SchedulingRequest, pods: Pods) -> Mask:
        """The endpoints with the model loaded, or all."""
        target = request.target
        if target is None:
            return np.ones(len(pods), dtype=np.bool_)
        mask = self._masks.get(
            pods, target, lambda each: each.models is not None and target in each.models
        )
        return mask if np.count_nonzero(mask) else ~mask


class HealthFilter:
    """Takes ejected endpoints out, and terminating ones that still serve, while others are left.

    A pod that is being deleted and still answers is better than none (KEP-1669); so is one that
    was ejected for its errors: an ejection never empties the pool.
    """

    def __init__(self) -> None:
        """Nothing is remembered yet."""
        self._masks = _MaskMemory()

    def filter(self, request: SchedulingRequest, pods: Pods) -> Mask:
        """The healthy and staying ones, else the healthy ones, else all."""
        del request
        healthy: Mask = pods.health > 0
        staying = self._masks.get(pods, "", lambda each: not each.terminating)
        for mask in (healthy & staying, healthy, staying):
            if np.count_nonzero(mask):
                return mask
        return np.ones(len(pods), dtype=np.bool_)


class DecodeFilter:
    """Keeps pods whose role includes decoding (llm-d-router's ``decode-filter``).

    The label ``llm-d.ai/role``; a pod without it does everything.
    """

    def filter(self, request: SchedulingRequest, pods: Pods) -> Mask:
        """Those that decode."""
        del request
        roles = ("", "decode", "prefill-decode", "encode-prefill-decode", "both")
        return _mask(
            pods, [each.labels.get("llm-d.ai/role", "") in roles for each in pods.endpoints]
        )


class HeadroomFilter:
    """Keeps the endpoints whose KV cache has room for the request, while there are any."""

    def __init__(self, *, share: float = 0.95) -> None:
        """``share`` of the cache may be in use with the request in it."""
        self._share = share

    def filter(self, request: SchedulingRequest, pods: Pods) -> Mask:
        """Those with room by what is in flight, or all."""
        uncached = np.maximum(request.prompt_tokens - pods.cached_tokens, 0.0)
        need = pods.held_tokens + uncached + request.output_tokens
        mask: Mask = need <= self._share * pods.kv_tokens
        return mask if mask.any() else ~mask


class LabelSelectorFilter:
    """Keeps the endpoints whose pod has the labels (llm-d-router's ``label-selector-filter``).

    ``matchLabels`` and ``matchExpressions`` mean what they mean in Kubernetes.
    """

    def __init__(
        self,
        *,
        matchLabels: Mapping[str, str] | None = None,  # noqa: N803 - as users write it
        matchExpressions: Sequence[Mapping[str, Any]] = (),  # noqa: N803
    ) -> None:
        """Take a label selector."""
        self._labels = dict(matchLabels or {})
        self._expressions = tuple(matchExpressions)
        for each in self._expressions:
            if each.get("operator") not in _OPERATORS:
                raise ValueError(
                    f"matchExpressions: operator {each.get('operator')!r} is none of "
                    f"{', '.join(_OPERATORS)}"
                )

    def filter(self, request: SchedulingRequest, pods: Pods) -> Mask:
        """Those that match."""
        del request
        return _mask(pods, [self._matches(each.labels) for each in pods.endpoints])

    def _matches(self, labels: Mapping[str, str]) -> bool:
        if any(labels.get(key) != value for key, value in self._labels.items()):
            return False
        return all(_holds(each, labels) for each in self._expressions)


class HeaderEndpointFilter:
    """Keeps the endpoints that a request header names: for conformance tests of gateways.

    Gateway API Inference Extension, conformance/testing-epp: header
    ``test-epp-endpoint-selection``, addresses with commas between them.
    """

    _HEADER = "test-epp-endpoint-selection"

    def filter(self, request: SchedulingRequest, pods: Pods) -> Mask:
        """All without the header."""
        named = request.headers.get(self._HEADER)
        if named is None:
            return np.ones(len(pods), dtype=np.bool_)
        subset = subsets.Subset(subsets.split_hint(named))
        return _mask(pods, [subset.allows(each.address) for each in pods.endpoints])


_MASKS = 1_000

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression.get("values", ())
        case "NotIn":
            return value not in expression.get("values", ())
        case "Exists":
            return value is not None
        case _:
            return value is None


class _MaskMemory:
    """Masks that depend on nothing but the endpoints: these change seldom, requests come often."""

    def __init__(self) -> None:
        self._endpoints: NDArray[np.object_] | None = None
        self._masks: dict[str, Mask] = {}

    def get(self, pods: Pods, key: str, test: Callable[[Endpoint], bool]) -> Mask:
        """The mask of ``test``, which is told by ``key``; the caller leaves it as it is."""
        if pods.endpoints is not self._endpoints:
            self._endpoints = pods.endpoints
            self._masks = {}
        mask = self._masks.get(key)
        if mask is None:
            mask = _mask(pods, [test(each) for each in pods.endpoints])
            # Names come from clients: what is remembered of them is bounded.
            if len(self._masks) < _MASKS:
                self._masks[key] = mask
        return mask


def _mask(pods: Pods, values: list[bool]) -> Mask:
    return np.fromiter(values, dtype=np.bool_, count=len(pods))
