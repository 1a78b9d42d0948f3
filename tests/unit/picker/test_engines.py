"""Metrics pages of each engine, whole, cut and mangled."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.engines import PageReader
from inference_picker.readings import Readings

# Names and labels as vLLM 0.32 writes them.
VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="base"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="base"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="base",reason="capacity"} 90.0
vllm:kv_cache_usage_perc{engine="0",model_name="base"} 0.25
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="1000"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.0e9
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",waiting_lora_adapters="c"} 1.7e9
"""
SGLANG = b"""sglang:num_running_reqs{model_name="m"} 8.0
sglang:num_queue_reqs{model_name="m"} 4.0
sglang:token_usage{model_name="m"} 0.5
sglang:max_total_num_tokens{model_name="m"} 120000.0
"""
# SGLang with priority scheduling and metrics of all schedulers: a sum under an empty priority
# beside each priority's own, and the ranks of one engine, which tell the same.
SGLANG_RANKS = b"""# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{dp_rank="0",pp_rank="0",priority="",tp_rank="0"} 14.0
sglang:num_running_reqs{dp_rank="0",pp_rank="0",priority="-1",tp_rank="0"} 4.0
sglang:num_running_reqs{dp_rank="0",pp_rank="0",priority="5",tp_rank="0"} 10.0
sglang:num_running_reqs{dp_rank="0",pp_rank="0",priority="",tp_rank="1"} 14.0
sglang:num_running_reqs{dp_rank="1",pp_rank="0",priority="",tp_rank="0"} 3.0
sglang:num_queue_reqs{dp_rank="0",pp_rank="0",priority="",tp_rank="0"} 2.0
sglang:num_queue_reqs{dp_rank="0",pp_rank="0",priority="",tp_rank="1"} 2.0
sglang:token_usage{dp_rank="0",pp_rank="0",tp_rank="0"} 0.5
sglang:token_usage{dp_rank="0",pp_rank="0",tp_rank="1"} 0.9
sglang:token_usage{dp_rank="1",pp_rank="0",tp_rank="0"} 0.25
sglang:max_total_num_tokens{dp_rank="0",pp_rank="0",tp_rank="0"} 60000.0
sglang:max_total_num_tokens{dp_rank="0",pp_rank="0",tp_rank="1"} 60000.0
sglang:max_total_num_tokens{dp_rank="1",pp_rank="0",tp_rank="0"} 60000.0
"""
# trtllm-serve writes it under /prometheus/metrics.
TRTLLM = b"""# HELP trtllm_num_requests_running Number of requests currently running
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 1.0
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 6.0
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.75
trtllm_kv_cache_max_blocks{engine_type="trtllm",model_name="m"} 500.0
trtllm_kv_cache_tokens_per_block{engine_type="trtllm",model_name="m"} 32.0
"""
# Triton's backend for TensorRT-LLM, on Triton's metrics port.
TRITON = b"""# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 5
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 2
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 7
# HELP nv_trt_llm_kv_cache_block_metrics TRT LLM KV cache block metrics
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm"} 0.1
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm"} 40
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="free",model="tensorrt_llm"} 360
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm"} 400
"""


def read(page: bytes) -> Readings | None:
    return PageReader().read(page)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param(
            VLLM,
            Readings(
                running=3,
                waiting=2,
                kv_usage=0.25,
                kv_blocks=1000,
                block_size=16,
                adapters_running=frozenset({"a", "b"}),
                adapters_waiting=frozenset({"c"}),
                max_adapters=4,
            ),
            id="vllm",
        ),
        pytest.param(
            VLLM.replace(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),
            Readings(
                running=3,
                waiting=2,
                kv_usage=0.25,
                kv_blocks=1000,
                block_size=16,
                adapters_running=frozenset({"a", "b"}),
                adapters_waiting=frozenset({"c"}),
                max_adapters=4,
            ),
            id="vllm-old",
        ),
        pytest.param(
            SGLANG,
            Readings(running=8, waiting=4, kv_usage=0.5, kv_blocks=120_000, block_size=1),
            id="sglang",
        ),
        pytest.param(
            SGLANG_RANKS,
            Readings(running=17, waiting=2, kv_usage=0.375, kv_blocks=120_000, block_size=1),
            id="sglang-ranks-and-priorities",
        ),
        pytest.param(
            TRTLLM,
            Readings(running=1, waiting=6, kv_usage=0.75, kv_blocks=500, block_size=32),
            id="trtllm-serve",
        ),
        pytest.param(
            TRITON,
            Readings(running=2, waiting=5, kv_usage=0.1, kv_blocks=400, block_size=64),
            id="triton-trtllm",
        ),
        pytest.param(b"go_goroutines 7\n", None, id="something-else"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_each_engines_page_is_read(page: bytes, expected: Readings | None) -> None:
    assert read(page) == expected


def test_the_ranks_of_one_page_are_added_and_their_cache_shares_averaged() -> None:
    second = re.sub(rb"(?m)^#.*\n", b"", VLLM).replace(b'engine="0"', b'engine="1"')
    second = second.replace(b"} 0.25", b"} 0.75")

    readings = read(VLLM + second)

    assert readings is not None
    assert (readings.running, readings.waiting, readings.kv_usage) == (6, 4, 0.5)
    assert readings.kv_blocks == 2000


def test_a_line_that_may_be_cut_is_not_believed() -> None:
    readings = read(b"vllm:num_requests_running 3\nvllm:num_requests_waiting 12")

    assert readings == Readings(running=3)


@pytest.mark.parametrize("number", [b"NaN", b"+Inf", b"-1", b"many", b"", b"1e400"])
def test_what_is_no_count_is_none(number: bytes) -> None:
    assert read(b"vllm:num_requests_running " + number + b"\n") == Readings()


def test_another_engine_at_the_same_address_is_recognised() -> None:
    reader = PageReader()
    reader.read(VLLM)

    readings = reader.read(SGLANG)

    assert readings is not None
    assert readings.running == 8


@given(st.integers(0, len(VLLM)))
def test_a_page_that_is_cut_anywhere_gives_no_wrong_number(cut: int) -> None:
    readings = read(VLLM[:cut])

    if readings is not None:
        assert readings.running == 3
        assert readings.waiting in {0, 2}
        assert readings.kv_usage in {0, 0.25}


@given(
    st.lists(st.tuples(st.integers(0, len(VLLM)), st.binary(max_size=12)), max_size=6),
    st.sampled_from([VLLM, SGLANG, SGLANG_RANKS, TRTLLM, TRITON]),
)
def test_no_mangled_page_raises(patches: list[tuple[int, bytes]], page: bytes) -> None:
    for at, patch in patches:
        page = page[:at] + patch + page[at + len(patch) :]

    readings = read(page)

    assert readings is None or (readings.running >= 0 and 0 <= readings.kv_usage <= 1)


@given(st.binary(max_size=300))
def test_no_bytes_raise(page: bytes) -> None:
    read(b"vllm:num_requests_running " + page)
