"""Which series of a model server a metric of the cells file is read from.

Names are those of vLLM (vllm/v1/metrics/loggers.py), old and new; llm-d's simulator and RHOAI's
``kserve_`` prefix are covered. Each pod's name is resolved by itself, so that the canary may run
another version of the server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from inference_analysis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX: Final = r"(?:kserve_)?vllm[:_]"
_SUFFIXES: Final = r"(?:_bucket|_sum|_count)?"
HTTP_REQUESTS: Final = "http_requests_total"
PICKED_REQUESTS: Final = "requests_total"
PICKED_ERRORS: Final = "request_errors_total"


class Kind(Enum):
    """How the samples of a family become cells."""

    HISTOGRAM = "histogram"
    REQUESTS = "requests"
    PICKED = "picked"
    """Requests as the picker counts them: failed ones are among all."""
    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric of the cells file and the names it may have, the preferred one first."""

    metric: str
    kind: Kind
    names: tuple[str, ...]
    """Without prefix and without ``_bucket``, ``_sum`` or ``_count``."""
    full_names: tuple[str, ...] = ()
    """Names given by the user; they have no prefix and come first."""
    prefix: str = _PREFIX
    """Regular expression of what precedes ``names``."""
    shown: str = "vllm:"
    """The prefix as a person writes it."""

    def pattern(self) -> str:
        """Regular expression (RE2, anchored by Prometheus) of all series of the family.

        A histogram's bare name is in it, because a native histogram has no other.
        """
        names = [re.escape(name) for name in self.full_names]
        if self.names:
            names.append(f"{self.prefix}(?:{'|'.join(re.escape(name) for name in self.names)})")
        joined = f"(?:{'|'.join(names)})"
        if self.kind is Kind.HISTOGRAM:
            return joined + _SUFFIXES
        return f"{joined}|{HTTP_REQUESTS}" if self.kind is Kind.REQUESTS else joined

    def rank(self, stem: str) -> int | None:
        """Place of a series' name in the order of preference, or None if it is none of them."""
        if stem in self.full_names:
            return self.full_names.index(stem)
        for i, name in enumerate(self.names):
            if re.fullmatch(self.prefix + re.escape(name), stem):
                return len(self.full_names) + i
        return None


def _histogram(metric: str, *names: str) -> Family:
    return Family(metric=metric, kind=Kind.HISTOGRAM, names=names)


FAMILIES: Final = (
    _histogram("ttft", "time_to_first_token_seconds"),
    # Renamed in vLLM 0.11; both are the time between two tokens.
    _histogram("itl", "inter_token_latency_seconds", "time_per_output_token_seconds"),
    _histogram("tpot", "request_time_per_output_token_seconds"),
    _histogram("e2e", "e2e_request_latency_seconds"),
    _histogram("prompt_tokens", "request_prompt_tokens"),
    _histogram("output_tokens", "request_generation_tokens"),
    Family(metric="requests", kind=Kind.REQUESTS, names=("request_success_total",)),
    Family(metric="running", kind=Kind.GAUGE, names=("num_requests_running",)),
    Family(
        metric="cacheHits",
        kind=Kind.COUNTER,
        names=("prefix_cache_hits_total", "gpu_prefix_cache_hits_total"),
    ),
    Family(
        metric="cacheQueries",
        kind=Kind.COUNTER,
        names=("prefix_cache_queries_total", "gpu_prefix_cache_queries_total"),
    ),
    # Renamed in vLLM 0.9.2.
    Family(
        metric="kvUsage", kind=Kind.GAUGE, names=("kv_cache_usage_perc", "gpu_cache_usage_perc")
    ),
    Family(metric="preemptions", kind=Kind.COUNTER, names=("num_preemptions_total",)),
    Family(metric="generatedTokens", kind=Kind.COUNTER, names=("generation_tokens_total",)),
)

UP: Final = Family(metric="up", kind=Kind.GAUGE, names=(), full_names=("up",))
"""Prometheus' own series of each target: it is there, as 0, where scraping fails."""


_PICKER: Final = "inference_picker_"


def picker_families() -> tuple[Family, ...]:
    """The picker's series (docs/picker.md) under the names of the cells file."""
    histograms = {
        "ttft": "time_to_first_token_seconds",
        "itl": "inter_token_latency_seconds",
        "tpot": "time_per_output_token_seconds",
        "e2e": "request_duration_seconds",
        "prompt_tokens": "prompt_tokens",
        "output_tokens": "output_tokens",
    }
    counters = {"cacheHits": "cached_tokens_sum", "cacheQueries": "prompt_tokens_sum"}
    found = [_histogram(metric, name) for metric, name in histograms.items()]
    names = (PICKED_REQUESTS, PICKED_ERRORS)
    found.append(Family(metric="requests", kind=Kind.PICKED, names=names))
    found += [
        Family(metric=metric, kind=Kind.COUNTER, names=(name,)) for metric, name in counters.items()
    ]
    return tuple(replace(family, prefix=_PICKER, shown=_PICKER) for family in found)


def families(aliases: Iterable[str]) -> tuple[Family, ...]:
    """The families with the user's ``METRIC=NAME`` added in front.

    A metric that is not built in becomes a histogram of its own. Raises InputError for text of
    another form.
    """
    found = {family.metric: family for family in FAMILIES}
    for text in aliases:
        metric, equals, name = text.partition("=")
        stem = re.sub(r"_(?:bucket|sum|count)$", "", name)
        if not equals or not metric or not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", stem):
            raise InputError(
                f"--alias {text!r}: expected METRIC=NAME, e.g. ttft=my_first_token_seconds"
            )
        family = found.get(metric, Family(metric=metric, kind=Kind.HISTOGRAM, names=(stem,)))
        found[metric] = replace(family, full_names=(*family.full_names, stem))
    return tuple(found.values())
