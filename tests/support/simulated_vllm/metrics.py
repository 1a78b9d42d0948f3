"""vLLM's metrics: names, labels, help texts and bucket bounds as vLLM 0.32 exposes them.

`model_name` is always the first served name, also for requests to a LoRA adapter: vLLM has no
adapter label on counters and histograms.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    Summary,
    generate_latest,
)

if TYPE_CHECKING:
    from support.simulated_vllm.engine import Emitted, Engine, Sequence, Totals

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")
REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")
PROMPT_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
CACHE_TIERS = ("device", "host", "p2p", "disk", "external_unspecified")
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")

TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
ITERATION_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
PER_TOKEN_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
REQUEST_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
HTTP_BUCKETS = (0.1, 0.5, 1.0)
HTTP_HIGH_RESOLUTION_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5),
    *(5.0, 7.5, 10.0, 30.0, 60.0),
)

_COUNTERS = {
    "estimated_flops_per_gpu": "Estimated number of floating point operations per GPU "
    "(for Model Flops Utilization calculations).",
    "estimated_read_bytes_per_gpu": "Estimated number of bytes read from memory per GPU "
    "(for Model Flops Utilization calculations).",
    "estimated_write_bytes_per_gpu": "Estimated number of bytes written to memory per GPU "
    "(for Model Flops Utilization calculations).",
    "prefix_cache_queries": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits": "Prefix cache hits, in terms of number of cached tokens.",
    "external_prefix_cache_queries": "External prefix cache queries from KV connector "
    "cross-instance cache sharing, in terms of number of queried tokens.",
    "external_prefix_cache_hits": "External prefix cache hits from KV connector "
    "cross-instance cache sharing, in terms of number of cached tokens.",
    "mm_cache_queries": "Multi-modal cache queries, in terms of number of queried items.",
    "mm_cache_hits": "Multi-modal cache hits, in terms of number of cached items.",
    "num_preemptions": "Cumulative number of preemption from the engine.",
    "prompt_tokens": "Number of prefill tokens processed.",
    "prompt_tokens_cached": "Number of cached prompt tokens (local + external).",
    "generation_tokens": "Number of generation tokens processed.",
}
_GAUGES = {
    "num_requests_running": "Number of requests in model execution batches.",
    "num_requests_waiting": "Number of requests waiting to be processed.",
    "kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
}
_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "request_prompt_tokens": ("Number of prefill tokens processed.", TOKEN_BUCKETS),
    "request_generation_tokens": ("Number of generation tokens processed.", TOKEN_BUCKETS),
    "iteration_tokens_total": (
        "Histogram of number of tokens per engine_step.",
        ITERATION_BUCKETS,
    ),
    "request_max_num_generation_tokens": (
        "Histogram of maximum number of requested generation tokens.",
        TOKEN_BUCKETS,
    ),
    "request_params_n": ("Histogram of the n request parameter.", (1, 2, 5, 10, 20)),
    "request_params_max_tokens": (
        "Histogram of the max_tokens request parameter.",
        TOKEN_BUCKETS,
    ),
    "time_to_first_token_seconds": (
        "Histogram of time to first token in seconds.",
        FIRST_TOKEN_BUCKETS,
    ),
    "inter_token_latency_seconds": (
        "Histogram of inter-token latency in seconds.",
        PER_TOKEN_BUCKETS,
    ),
    "request_time_per_output_token_seconds": (
        "Histogram of time_per_output_token_seconds per request.",
        PER_TOKEN_BUCKETS,
    ),
    "e2e_request_latency_seconds": (
        "Histogram of e2e request latency in seconds.",
        REQUEST_BUCKETS,
    ),
    "request_queue_time_seconds": (
        "Histogram of time spent in WAITING phase for request.",
        REQUEST_BUCKETS,
    ),
    "request_inference_time_seconds": (
        "Histogram of time spent in RUNNING phase for request.",
        REQUEST_BUCKETS,
    ),
    "request_prefill_time_seconds": (
        "Histogram of time spent in PREFILL phase for request.",
        REQUEST_BUCKETS,
    ),
    "request_decode_time_seconds": (
        "Histogram of time spent in DECODE phase for request.",
        REQUEST_BUCKETS,
    ),
    "request_num_preemptions": (
        "Histogram of the number of times a request was preempted.",
        (1, 2, 3, 4, 5, 10, 20),
    ),
    "request_prefill_kv_computed_tokens": (
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
        TOKEN_BUCKETS,
    ),
}


class Metrics:
    """All series of one server, on a registry of its own."""

    def __init__(
        self, *, model_name: str, block_size: int, gpu_blocks: int, max_loras: int
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._labels = {"model_name": model_name, "engine": "0"}
        self._max_loras = str(max_loras)
        self._seen = {"preemptions": 0, "queries": 0, "hits": 0}
        names = tuple(self._labels)

        self.counters = {
            name: Counter(f"vllm:{name}", text, names, registry=self.registry).labels(
                **self._labels
            )
            for name, text in _COUNTERS.items()
        }
        self.gauges = {
            name: Gauge(f"vllm:{name}", text, names, registry=self.registry).labels(**self._labels)
            for name, text in _GAUGES.items()
        }
        self.histograms = {
            name: Histogram(
                f"vllm:{name}", text, names, registry=self.registry, buckets=buckets
            ).labels(**self._labels)
            for name, (text, buckets) in _HISTOGRAMS.items()
        }
        self.waiting_by_reason = self._gauges_by(
            "num_requests_waiting_by_reason",
            "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for "
            "scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, "
            "KV transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
            "reason",
            ("capacity", "deferred"),
        )
        self._gauges_by(
            "engine_sleep_state",
            "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is "
            "awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep "
            "level 2.",
            "sleep_state",
            SLEEP_STATES,
        )["awake"].set(1)
        self.prompt_tokens_by_source = self._counters_by(
            "prompt_tokens_by_source", "Number of prompt tokens by source.", "source",
            PROMPT_SOURCES,
        )  # fmt: skip
        self.cached_by_tier = self._counters_by(
            "prompt_tokens_cached_by_source",
            "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), "
            "host (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or "
            "external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + "
            "vllm:external_prefix_cache_hits.",
            "source",
            CACHE_TIERS,
        )
        self.finished = self._counters_by(
            "request_success",
            "Count of successfully processed requests.",
            "finished_reason",
            FINISHED_REASONS,
        )
        rejections = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ("model_name", "reason"),
            registry=self.registry,
        )
        self.rejections = {
            reason: rejections.labels(model_name=model_name, reason=reason) for reason in REJECTIONS
        }
        self._lora_info = Gauge(
            "vllm:lora_requests_info",
            "Running stats on lora requests.",
            ("max_lora", "waiting_lora_adapters", "running_lora_adapters"),
            registry=self.registry,
        )
        cache = _cache_config(block_size=block_size, gpu_blocks=gpu_blocks)
        Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            tuple(cache),
            registry=self.registry,
        ).labels(**cache).set(1)
        self._add_http()

    def record_step(self, emitted: list[Emitted], totals: Totals) -> None:
        """Count the tokens of one engine step."""
        tokens = len(emitted)
        for item in emitted:
            sequence = item.sequence
            if item.gap_s is not None:
                self.histograms["inter_token_latency_seconds"].observe(item.gap_s)
                continue
            tokens += sequence.prompt_tokens
            assert sequence.first_token_at is not None
            self.histograms["time_to_first_token_seconds"].observe(
                sequence.first_token_at - sequence.arrived
            )
            cached = sequence.cached_tokens
            self.counters["prompt_tokens"].inc(sequence.prompt_tokens)
            self.counters["prompt_tokens_cached"].inc(cached)
            self.prompt_tokens_by_source["local_compute"].inc(sequence.prompt_tokens - cached)
            self.prompt_tokens_by_source["local_cache_hit"].inc(cached)
            self.cached_by_tier["device"].inc(cached)
        if emitted:
            self.counters["generation_tokens"].inc(len(emitted))
            self.histograms["iteration_tokens_total"].observe(tokens)
        self._follow("num_preemptions", "preemptions", totals.preemptions)
        self._follow("prefix_cache_queries", "queries", totals.prefix_queries)
        self._follow("prefix_cache_hits", "hits", totals.prefix_hits)

    def record_finished(
        self, sequence: Sequence, *, reason: str, max_tokens: int, now: float
    ) -> None:
        """Count a request that ended; vLLM observes the phases of every reason alike."""
        self.finished[reason].inc()
        first, last = sequence.first_token_at, sequence.last_token_at
        scheduled = sequence.scheduled_at
        observe = {
            "request_prompt_tokens": float(sequence.prompt_tokens),
            "request_generation_tokens": float(sequence.generated),
            "request_max_num_generation_tokens": float(sequence.generated),
            "request_params_n": 1.0,
            "request_params_max_tokens": float(max_tokens),
            "request_num_preemptions": float(sequence.preemptions),
            "e2e_request_latency_seconds": now - sequence.arrived,
        }
        if scheduled is not None and first is not None and last is not None:
            later_tokens = sequence.generated - 1
            observe |= {
                "request_queue_time_seconds": scheduled - sequence.arrived,
                "request_prefill_time_seconds": first - scheduled,
                "request_decode_time_seconds": last - first,
                "request_inference_time_seconds": last - scheduled,
                "request_time_per_output_token_seconds": (
                    (last - first) / later_tokens if later_tokens else 0.0
                ),
                "request_prefill_kv_computed_tokens": float(
                    sequence.prompt_tokens - sequence.cached_tokens
                ),
            }
        for name, value in observe.items():
            self.histograms[name].observe(value)

    def record_http(
        self, *, handler: str, method: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """Count one HTTP request under its status class, "2xx" to "5xx"."""
        self._http_requests.labels(
            handler=handler, method=method, status=f"{status // 100}xx"
        ).inc()
        self._http_received.labels(handler=handler).observe(received)
        self._http_sent.labels(handler=handler).observe(sent)
        self._http_high_resolution.observe(seconds)
        self._http_seconds.labels(handler=handler, method=method).observe(seconds)

    def exposition(self, engine: Engine, *, lora_enabled: bool) -> bytes:
        """The page of /metrics, with the gauges read from the engine."""
        waiting, deferred = engine.waiting, engine.waiting_for_adapter()
        self.gauges["num_requests_running"].set(len(engine.running))
        self.gauges["num_requests_waiting"].set(waiting)
        self.gauges["kv_cache_usage_perc"].set(engine.pool.usage)
        self.waiting_by_reason["deferred"].set(deferred)
        self.waiting_by_reason["capacity"].set(waiting - deferred)
        if lora_enabled:
            self.touch_adapters(engine.active_adapters())
        return generate_latest(self.registry)

    def touch_adapters(self, names: list[str]) -> None:
        """Stamp the series of this combination of adapters.

        As in vLLM 0.32 there is one sticky series per combination and order, its value is the
        time of the last update, and running and waiting hold the same list.
        """
        joined = ",".join(names)
        self._lora_info.labels(
            max_lora=self._max_loras, waiting_lora_adapters=joined, running_lora_adapters=joined
        ).set(time.time())

    def _follow(self, counter: str, key: str, total: int) -> None:
        if total != self._seen[key]:
            self.counters[counter].inc(total - self._seen[key])
            self._seen[key] = total

    def _gauges_by(
        self, name: str, text: str, label: str, values: tuple[str, ...]
    ) -> dict[str, Gauge]:
        family = Gauge(f"vllm:{name}", text, (*self._labels, label), registry=self.registry)
        return {value: family.labels(**self._labels, **{label: value}) for value in values}

    def _counters_by(
        self, name: str, text: str, label: str, values: tuple[str, ...]
    ) -> dict[str, Counter]:
        family = Counter(f"vllm:{name}", text, (*self._labels, label), registry=self.registry)
        return {value: family.labels(**self._labels, **{label: value}) for value in values}

    def _add_http(self) -> None:
        # Names and texts of prometheus-fastapi-instrumentator, which vLLM mounts.
        only = "Only value of header is respected. Otherwise ignored. No percentile calculated. "
        self._http_requests = Counter(
            "http_requests",
            "Total number of requests by method, status and handler.",
            ("method", "status", "handler"),
            registry=self.registry,
        )
        self._http_received = Summary(
            "http_request_size_bytes",
            f"Content length of incoming requests by handler. {only}",
            ("handler",),
            registry=self.registry,
        )
        self._http_sent = Summary(
            "http_response_size_bytes",
            f"Content length of outgoing responses by handler. {only}",
            ("handler",),
            registry=self.registry,
        )
        self._http_high_resolution = Histogram(
            "http_request_duration_highr_seconds",
            "Latency with many buckets but no API specific labels. Made for more accurate "
            "percentile calculations. ",
            buckets=HTTP_HIGH_RESOLUTION_BUCKETS,
            registry=self.registry,
        )
        self._http_seconds = Histogram(
            "http_request_duration_seconds",
            "Latency with only few buckets by handler. Made to be only used if aggregation by "
            "handler is important. ",
            ("method", "handler"),
            buckets=HTTP_BUCKETS,
            registry=self.registry,
        )


def _cache_config(*, block_size: int, gpu_blocks: int) -> dict[str, str]:
    """Labels of vllm:cache_config_info; what the simulation lacks has vLLM's default."""
    return {
        "_block_size_resolved": "True",
        "block_size": str(block_size),
        "cache_dtype": "auto",
        "cache_hit_alignment_tokens": "None",
        "effective_attention_block_size": str(block_size),
        "enable_mamba_shared_prefix_checkpoint": "False",
        "enable_prefix_caching": "True",
        "engine": "0",
        "gpu_memory_utilization": "0.92",
        "hash_block_size": "None",
        "is_attention_free": "False",
        "kv_cache_dtype_skip_layers": "[]",
        "kv_cache_layout": "None",
        "kv_cache_max_concurrency": "None",
        "kv_cache_memory_bytes": "None",
        "kv_cache_size_tokens": str(block_size * gpu_blocks),
        "kv_offloading_backend": "native",
        "kv_offloading_size": "None",
        "kv_sharing_fast_prefill": "False",
        "mamba_block_size": "None",
        "mamba_cache_dtype": "auto",
        "mamba_cache_mode": "none",
        "mamba_page_size_padded": "None",
        "mamba_ssm_cache_dtype": "float32",
        "num_cpu_blocks": "None",
        "num_gpu_blocks": str(gpu_blocks),
        "num_gpu_blocks_override": str(gpu_blocks),
        "prefix_cache_retention_interval": "0",
        "prefix_caching_hash_algo": "sha256",
        "prefix_match_unit": "None",
        "replayssm_buffer_len": "16",
        "skip_page_size_padded": "None",
        "sliding_window": "None",
        "swa_bounded_replay": "True",
        "use_kda_recoverssm": "False",
        "use_replayssm": "False",
        "user_specified_block_size": "False",
    }
