"""What a model server's metrics page says about its load: vLLM, SGLang, TensorRT-LLM, Triton.

Only the lines that are needed are looked for: a page has hundreds, and there are many pages each
second. Series of several engines on one page (data parallel ranks) are added up, shares of the KV
cache averaged. Lines that tell the same again are left out: those of the other ranks of one
engine, and of single priorities beside their sum (SGLang).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from inference_picker.page_lines import PageLines
from inference_picker.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Callable

    Adapters = tuple[frozenset[str], frozenset[str], int | None]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Names of one engine's series; of several names for one thing the first that is there."""

    name: str
    running: tuple[bytes, ...]
    waiting: tuple[bytes, ...]
    kv_usage: tuple[bytes, ...]
    kv_tokens: tuple[bytes, ...] = ()
    """A gauge of the whole KV cache in tokens."""
    kv_blocks: tuple[bytes, ...] = ()
    """A gauge of its blocks, where `kv_block_size` is one of the tokens in each."""
    kv_block_size: tuple[bytes, ...] = ()
    cache_info: tuple[bytes, ...] = ()
    """An info series whose labels hold blocks and block size."""
    blocks_label: bytes = b"num_gpu_blocks"
    block_size_label: bytes = b"block_size"
    adapters: tuple[bytes, ...] = ()
    """vLLM's info series of adapters; its value is a time, and the newest counts."""


# vLLM 0.32 and, for the second name of a thing, before 0.11; SGLang 0.4 and later; trtllm-serve;
# Triton's backend for TensorRT-LLM, which tells its series apart by a label. The mapping is that
# of the Gateway API Inference Extension's model server protocol; what SGLang tells by labels of
# its cache_config_info there, its gauge of tokens tells in all versions.
ENGINES: Final = (
    Engine(
        name="vllm",
        running=(b"vllm:num_requests_running",),
        waiting=(b"vllm:num_requests_waiting",),
        kv_usage=(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),
        cache_info=(b"vllm:cache_config_info",),
        adapters=(b"vllm:lora_requests_info",),
    ),
    Engine(
        name="sglang",
        running=(b"sglang:num_running_reqs",),
        waiting=(b"sglang:num_queue_reqs",),
        kv_usage=(b"sglang:token_usage",),
        kv_tokens=(b"sglang:max_total_num_tokens",),
    ),
    Engine(
        name="trtllm-serve",
        running=(b"trtllm_num_requests_running",),
        waiting=(b"trtllm_num_requests_waiting",),
        kv_usage=(b"trtllm_kv_cache_utilization",),
        kv_blocks=(b"trtllm_kv_cache_max_blocks",),
        kv_block_size=(b"trtllm_kv_cache_tokens_per_block",),
    ),
    Engine(
        name="triton-trtllm",
        running=(b'nv_trt_llm_request_metrics{*request_type="scheduled"',),
        waiting=(b'nv_trt_llm_request_metrics{*request_type="waiting"',),
        kv_usage=(b'nv_trt_llm_kv_cache_block_metrics{*kv_cache_block_type="fraction"',),
        kv_blocks=(b'nv_trt_llm_kv_cache_block_metrics{*kv_cache_block_type="max"',),
        kv_block_size=(b'nv_trt_llm_kv_cache_block_metrics{*kv_cache_block_type="tokens_per"',),
    ),
)

_LABEL_VALUE: Final = rb'[{,]\s*%b="((?:[^"\\]|\\.)*)"'
_LABELS: Final = {
    name: re.compile(_LABEL_VALUE % name)
    for name in (
        *(b"num_gpu_blocks", b"block_size", b"max_lora"),
        *(b"running_lora_adapters", b"waiting_lora_adapters"),
    )
}
_REPEATED: Final = re.compile(rb'[{,]\s*(?:priority="[^"]+"|(?:tp|pp|moe_ep)_rank="(?!0")[^"]*")')
"""Lines about a priority, and about ranks that work on the same requests as rank 0."""
_MAX_COUNT: Final = 1e12
_NO_ADAPTERS: Final = (frozenset[str](), frozenset[str](), None)
# A series that was not there may appear, and be noticed so many pages later at most.
_PAGES_PER_SEARCH: Final = 32


class PageReader:
    """Reads the pages of one endpoint; remembers which engine writes them, and where what is."""

    __slots__ = ("_found", "_left", "_readings", "_values")

    def __init__(self) -> None:
        """Nothing is known before the first page."""
        self._found: _Found | None = None
        self._left = 0
        self._values: tuple[object, ...] = ()
        self._readings: Readings | None = None

    def read(self, page: bytes) -> Readings | None:
        """The readings; None where no engine that is known here wrote the page.

        They are the same object as those of the page before where nothing has changed.
        """
        found = self._found
        if found is None or not self._left or not found.follow(page):
            found = self._found = _search(page, None if found is None else found.engine)
            self._left = _PAGES_PER_SEARCH
        self._left -= 1
        if found is None:
            return None
        values = found.values()
        if self._readings is None or values != self._values:
            self._values = values
            self._readings = found.readings()
        return self._readings


class _Found:
    """What one endpoint's pages have of the series that are needed."""

    __slots__ = (
        *("_adapters", "_block_size", "_blocks", "_cache", "_in_order", "_kv_usage"),
        *("_running", "_waiting", "engine"),
    )

    def __init__(self, page: bytes, engine: Engine, running: PageLines[float]) -> None:
        self.engine = engine
        self._running = running
        self._waiting = _first(page, engine.waiting, _total)
        self._kv_usage = _first(page, engine.kv_usage, _share)
        self._cache = _cache(page, engine)
        self._blocks = _first(page, engine.kv_blocks, _total)
        self._block_size = _first(page, engine.kv_block_size, _total)
        self._adapters = _first(page, engine.adapters, _adapters)
        self._in_order = sorted(
            (
                each
                for each in (
                    *(running, self._waiting, self._kv_usage, self._cache, self._blocks),
                    *(self._block_size, self._adapters),
                )
                if each is not None
            ),
            key=lambda each: each.start,
        )

    def follow(self, page: bytes) -> bool:
        """Take in the next page; False where it has to be searched anew."""
        shift = 0
        for each in self._in_order:
            moved = each.follow(page, shift)
            if moved is None:
                return False
            shift = moved
        return True

    def values(self) -> tuple[object, ...]:
        """What the readings are made of."""
        return tuple(each.value for each in self._in_order)

    def readings(self) -> Readings:
        """What the page says."""
        blocks, block_size = self._cache.value if self._cache else (None, None)
        if self._blocks and self._block_size:
            blocks = int(self._blocks.value) or None
            block_size = int(self._block_size.value) or None
        running, waiting, limit = self._adapters.value if self._adapters else _NO_ADAPTERS
        return Readings(
            running=self._running.value,
            waiting=self._waiting.value if self._waiting else 0.0,
            kv_usage=self._kv_usage.value if self._kv_usage else 0.0,
            kv_blocks=blocks,
            block_size=block_size,
            adapters_running=running,
            adapters_waiting=waiting,
            max_adapters=limit,
        )


def _search(page: bytes, last: Engine | None) -> _Found | None:
    """Look through the whole page, for the engine that wrote the last one before the others."""
    for engine in ENGINES if last is None else (last, *ENGINES):
        running = _first(page, engine.running, _total)
        if running is not None:
            return _Found(page, engine, running)
    return None


def _first(
    page: bytes, patterns: tuple[bytes, ...], parse: Callable[[list[bytes]], Value]
) -> PageLines[Value] | None:
    """The first of these series that the page has."""
    for pattern in patterns:
        found = PageLines.search(page, pattern, parse)
        if found is not None:
            return found
    return None


def _total(lines: list[bytes]) -> float:
    return math.fsum(map(_value, _counted(lines)))


def _share(lines: list[bytes]) -> float:
    return min(1.0, _total(lines) / len(_counted(lines)))


def _counted(lines: list[bytes]) -> list[bytes]:
    """The lines that do not tell the same again; all where nothing else is there."""
    return [line for line in lines if not _REPEATED.search(line)] or lines


def _cache(page: bytes, engine: Engine) -> PageLines[tuple[int | None, int | None]] | None:
    """Blocks of the KV cache and tokens in each."""

    def of_labels(lines: list[bytes]) -> tuple[int | None, int | None]:
        blocks = [_whole(_label(line, engine.blocks_label)) for line in lines]
        size = _whole(_label(lines[0], engine.block_size_label))
        known = [each for each in blocks if each]
        return (sum(known), size) if known and size else (None, None)

    def of_gauge(lines: list[bytes]) -> tuple[int | None, int | None]:
        tokens = _total(lines)
        return (int(tokens), 1) if tokens else (None, None)

    if engine.cache_info:
        return _first(page, engine.cache_info, of_labels)
    return _first(page, engine.kv_tokens, of_gauge)


def _adapters(lines: list[bytes]) -> Adapters:
    newest = max(lines, key=_value)
    return (
        _names(_label(newest, b"running_lora_adapters")),
        _names(_label(newest, b"waiting_lora_adapters")),
        _whole(_label(newest, b"max_lora")),
    )


def _value(line: bytes) -> float:
    """The number of a line; 0 for what is none, or no sensible count."""
    words = line[line.rfind(b"}") + 1 :].split() if b"}" in line else line.split()[1:]
    try:
        value = float(words[0])
    except (ValueError, IndexError):
        return 0.0
    return value if math.isfinite(value) and 0 <= value <= _MAX_COUNT else 0.0


def _label(line: bytes, name: bytes) -> bytes:
    found = _LABELS[name].search(line)
    return found.group(1) if found else b""


def _whole(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 13 else None  # noqa: PLR2004


def _names(text: bytes) -> frozenset[str]:
    return frozenset(
        name for each in text.decode("utf-8", "replace").split(",") if (name := each.strip())
    )
