"""A metrics page as vLLM 0.32 writes it: its families in its order, 50 KB, growing numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_LABELS: Final = 'engine="0",model_name="base"'
_LENGTHS: Final = "1 2 5 10 20 50 100 200 500 1000 2000 5000 10000 20000 50000 100000"
_SECONDS: Final = (
    "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0 480.0 960.0 "
    "1920.0 7680.0"
)
_GAPS: Final = "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0"
_FIRST: Final = "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0"

# Each counter and histogram is followed by the time at which it was made, as a gauge of its own.
_PROCESS: Final = (
    *("python_gc_objects_collected_total", "python_gc_collections_total"),
    *("process_virtual_memory_bytes", "process_resident_memory_bytes"),
    *("process_cpu_seconds_total", "process_open_fds"),
)
_BEFORE: Final = (
    *("estimated_flops_per_gpu", "estimated_read_bytes_per_gpu", "estimated_write_bytes_per_gpu"),
)
_COUNTERS: Final = (
    *("prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries"),
    *("external_prefix_cache_hits", "mm_cache_queries", "mm_cache_hits", "num_preemptions"),
    *("prompt_tokens", "prompt_tokens_by_source", "prompt_tokens_cached", "generation_tokens"),
    *("request_success", "admission_rejections"),
)
_HISTOGRAMS: Final = {
    "request_prompt_tokens": _LENGTHS,
    "request_generation_tokens": _LENGTHS,
    "iteration_tokens_total": "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384",
    "request_max_num_generation_tokens": _LENGTHS,
    "request_params_n": "1 2 5 10 20",
    "request_params_max_tokens": _LENGTHS,
    "time_to_first_token_seconds": _FIRST,
    "inter_token_latency_seconds": _GAPS,
    "request_time_per_output_token_seconds": _GAPS,
    "e2e_request_latency_seconds": _SECONDS,
    "request_queue_time_seconds": _SECONDS,
    "request_inference_time_seconds": _SECONDS,
    "request_prefill_time_seconds": _SECONDS,
    "request_decode_time_seconds": _SECONDS,
    "request_num_preemptions": "1 2 3 4 5 10 20",
    "request_prefill_kv_computed_tokens": _LENGTHS,
}


def metrics_page(step: int) -> bytes:
    """The page after so many steps of a busy server."""
    return ("\n".join(_lines(step)) + "\n").encode()


def _lines(step: int) -> Iterator[str]:
    served = 20_000 + step
    for name in _PROCESS:
        yield from _head(name, "gauge")
        yield f"{name} {4_000_000.0 + 7 * step}"
    for name in _BEFORE:
        yield from _counter(name, 3.1e9 * served)
    yield from _gauge("num_requests_running", 3 + step % 11)
    yield from _gauge("num_requests_waiting", step % 4)
    yield from _head("vllm:num_requests_waiting_by_reason", "gauge")
    for reason in ("capacity", "deferred"):
        yield f'vllm:num_requests_waiting_by_reason{{{_LABELS},reason="{reason}"}} {step % 4}.0'
    yield from _gauge("kv_cache_usage_perc", 0.25 + 0.01 * (step % 30))
    for name in _COUNTERS:
        yield from _counter(name, 11 * served)
    for name, bounds in _HISTOGRAMS.items():
        yield from _histogram(name, bounds.split(), served)
    yield from _head("vllm:lora_requests_info", "gauge")
    for place, adapter in enumerate(("", "travel-helper-v1", "travel-helper-v2")):
        yield (
            f'vllm:lora_requests_info{{max_lora="2",running_lora_adapters="{adapter}",'
            f'waiting_lora_adapters=""}} {1.7952522e9 + place}'
        )
    yield from _head("vllm:cache_config_info", "gauge")
    settings = ",".join(f'setting_of_the_cache_{number}="None"' for number in range(20))
    sizes = f'block_size="16",{settings},num_gpu_blocks="16384"'
    yield f"vllm:cache_config_info{{{sizes}}} 1.0"
    for handler in ("/v1/models", "/v1/completions", "/v1/chat/completions"):
        yield from _head("http_request_duration_seconds", "histogram")
        for bound in ("0.1", "0.5", "1.0", "+Inf"):
            labels = f'handler="{handler}",le="{bound}",method="POST"'
            yield f"http_request_duration_seconds_bucket{{{labels}}} {served}.0"


def _head(name: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} What a server counts under the name of {name}."
    yield f"# TYPE {name} {kind}"


def _gauge(name: str, value: float) -> Iterator[str]:
    yield from _head(f"vllm:{name}", "gauge")
    yield f"vllm:{name}{{{_LABELS}}} {float(value)!r}"


def _counter(name: str, value: float) -> Iterator[str]:
    yield from _head(f"vllm:{name}_total", "counter")
    yield f"vllm:{name}_total{{{_LABELS}}} {float(value)!r}"
    yield from _gauge(f"{name}_created", 1.7952519436752708e9)


def _histogram(name: str, bounds: list[str], served: int) -> Iterator[str]:
    yield from _head(f"vllm:{name}", "histogram")
    for place, bound in enumerate([*bounds, "+Inf"]):
        count = served * (place + 1) // (len(bounds) + 1)
        yield f'vllm:{name}_bucket{{engine="0",le="{bound}",model_name="base"}} {count}.0'
    yield f"vllm:{name}_count{{{_LABELS}}} {served}.0"
    yield f"vllm:{name}_sum{{{_LABELS}}} {served * 1.37}"
    yield from _gauge(f"{name}_created", 1.7952519436752708e9)
