"""What a model server's metrics page says about its load: vLLM, SGLang, TensorRT-LLM, Triton.

Only the lines that are needed are looked for: a page has hundreds, and there are many pages each
second. Series of several engines on one page (data parallel ranks) are added up, shares of the KV
cache averaged.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from inference_picker.readings import Readings


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Names of one engine's series; of several names for one thing the first that is there."""

    name: str
    running: tuple[bytes, ...]
    waiting: tuple[bytes, ...]
    kv_usage: tuple[bytes, ...]
    kv_tokens: bytes | None = None
    """A gauge of the whole KV cache in tokens."""
    cache_info: bytes | None = None
    """An info series whose labels hold blocks and block size."""
    blocks_label: bytes = b"num_gpu_blocks"
    block_size_label: bytes = b"block_size"
    adapters: bytes | None = None
    """vLLM's info series of adapters; its value is a time, and the newest counts."""


# vLLM 0.32 and, for the second name of a thing, before 0.11; SGLang 0.4 and later; trtllm-serve;
# Triton's backend for TensorRT-LLM, which tells its series apart by a label. The mapping is that
# of the Gateway API Inference Extension's model server protocol.
ENGINES: Final = (
    Engine(
        name="vllm",
        running=(b"vllm:num_requests_running",),
        waiting=(b"vllm:num_requests_waiting",),
        kv_usage=(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),
        cache_info=b"vllm:cache_config_info",
        adapters=b"vllm:lora_requests_info",
    ),
    Engine(
        name="sglang",
        running=(b"sglang:num_running_reqs",),
        waiting=(b"sglang:num_queue_reqs",),
        kv_usage=(b"sglang:token_usage",),
        kv_tokens=b"sglang:max_total_num_tokens",
    ),
    Engine(
        name="trtllm-serve",
        running=(b"trtllm_num_requests_running",),
        waiting=(b"trtllm_num_requests_waiting",),
        kv_usage=(b"trtllm_kv_cache_utilization",),
    ),
    Engine(
        name="triton-trtllm",
        running=(b'nv_trt_llm_request_metrics{*request_type="scheduled"',),
        waiting=(b'nv_trt_llm_request_metrics{*request_type="waiting"',),
        kv_usage=(b'nv_trt_llm_kv_cache_block_metrics{*kv_cache_block_type="fraction"',),
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
_MAX_COUNT: Final = 1e12


class PageReader:
    """Reads the pages of one endpoint; remembers which engine writes them."""

    __slots__ = ("_engine",)

    def __init__(self) -> None:
        """Nothing is known before the first page."""
        self._engine: Engine | None = None

    def read(self, page: bytes) -> Readings | None:
        """The readings; None where no engine that is known here wrote the page."""
        engine = self._engine
        if engine is None or not _found(page, engine.running):
            engine = next((each for each in ENGINES if _found(page, each.running)), None)
        self._engine = engine
        return None if engine is None else _readings(page, engine)


def _readings(page: bytes, engine: Engine) -> Readings:
    shares = _found(page, engine.kv_usage)
    blocks, block_size = _cache(page, engine)
    running, waiting, limit = _adapters(page, engine)
    return Readings(
        running=_total(_found(page, engine.running)),
        waiting=_total(_found(page, engine.waiting)),
        kv_usage=min(1.0, _total(shares) / len(shares)) if shares else 0.0,
        kv_blocks=blocks,
        block_size=block_size,
        adapters_running=running,
        adapters_waiting=waiting,
        max_adapters=limit,
    )


def _cache(page: bytes, engine: Engine) -> tuple[int | None, int | None]:
    """Blocks and tokens in each."""
    if engine.cache_info is not None:
        lines = _lines(page, engine.cache_info)
        blocks = [_whole(_label(line, engine.blocks_label)) for line in lines]
        size = _whole(_label(lines[0], engine.block_size_label)) if lines else None
        known = [each for each in blocks if each]
        return (sum(known), size) if known and size else (None, None)
    if engine.kv_tokens is not None:
        tokens = _total(_found(page, (engine.kv_tokens,)))
        return (int(tokens), 1) if tokens else (None, None)
    return None, None


def _adapters(page: bytes, engine: Engine) -> tuple[frozenset[str], frozenset[str], int | None]:
    """Adapters at work, adapters waited for, and how many fit into a batch."""
    lines = [] if engine.adapters is None else _lines(page, engine.adapters)
    if not lines:
        return frozenset(), frozenset(), None
    newest = max(lines, key=_value)
    return (
        _names(_label(newest, b"running_lora_adapters")),
        _names(_label(newest, b"waiting_lora_adapters")),
        _whole(_label(newest, b"max_lora")),
    )


def _found(page: bytes, names: tuple[bytes, ...]) -> list[float]:
    """Values of the first of these series that the page has."""
    for name in names:
        lines = _lines(page, name)
        if lines:
            return [_value(line) for line in lines]
    return []


def _lines(page: bytes, pattern: bytes) -> list[bytes]:
    """The whole lines of a series. ``NAME{*TEXT`` asks for TEXT among its labels."""
    name, _, wanted = pattern.partition(b"{*")
    lines: list[bytes] = []
    at = 0 if page.startswith(name) else _next_line(page, name, 0)
    while at is not None:
        end = page.find(b"\n", at)
        if end < 0:
            # The line may have been cut within its number.
            break
        # A longer name may begin with this one.
        if page[at + len(name) : at + len(name) + 1] in {b"{", b" "}:
            line = page[at:end]
            if wanted in line:
                lines.append(line)
        at = _next_line(page, name, end)
    return lines


def _next_line(page: bytes, name: bytes, start: int) -> int | None:
    found = page.find(b"\n" + name, start)
    return None if found < 0 else found + 1


def _value(line: bytes) -> float:
    """The number of a line; 0 for what is none, or no sensible count."""
    words = line[line.rfind(b"}") + 1 :].split() if b"}" in line else line.split()[1:]
    try:
        value = float(words[0])
    except (ValueError, IndexError):
        return 0.0
    return value if math.isfinite(value) and 0 <= value <= _MAX_COUNT else 0.0


def _total(values: list[float]) -> float:
    return math.fsum(values)


def _label(line: bytes, name: bytes) -> bytes:
    found = _LABELS[name].search(line)
    return found.group(1) if found else b""


def _whole(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 13 else None  # noqa: PLR2004


def _names(text: bytes) -> frozenset[str]:
    return frozenset(
        name for each in text.decode("utf-8", "replace").split(",") if (name := each.strip())
    )
