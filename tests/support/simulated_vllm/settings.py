"""Command line of the simulated server: vLLM's flags where it has them, then our own."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import PurePosixPath

from support.simulated_vllm.engine import Timing
from support.simulated_vllm.faults import (
    ENVIRONMENT_VARIABLE,
    FaultError,
    Faults,
    parse_faults,
)

_DEFAULT = Timing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a server is started with."""

    host: str
    port: int
    served: tuple[str, ...]
    version: str
    name: str
    """Pod name (or host), for the x-served-by header."""
    adapters: dict[str, str]
    lora_enabled: bool
    max_model_len: int
    max_queued: int | None
    """Requests that may wait, besides those in the batch; None: no limit."""
    timing: Timing
    faults: Faults
    mean_tokens: int
    stream_interval: int
    load_s: float
    drain_s: float
    shutdown_timeout_s: float
    seed: int


def parse(argv: list[str], environment: dict[str, str] | None = None) -> Settings:
    """Settings from arguments and environment. Exits with status 2 on a mistake, as argparse."""
    environment = dict(os.environ) if environment is None else environment
    parser = _parser()
    options = parser.parse_args(argv)
    model = next((word for word in options.command if word != "serve"), None)
    version = options.version or (PurePosixPath(model).name if model else "simulated-7B")
    adapters: dict[str, str] = {}
    for module in options.lora_modules:
        name, equals, path = module.partition("=")
        if not (name and equals and path):
            parser.error(f"--lora-modules: found {module!r}, expected NAME=PATH")
        adapters[name] = path
    faults = Faults()
    try:
        for text in (environment.get(ENVIRONMENT_VARIABLE, ""), *options.fault):
            faults = faults.merged(parse_faults(text))
    except FaultError as error:
        parser.error(f"--fault or {ENVIRONMENT_VARIABLE}: {error}")
    for name in ("speed", "max_num_seqs", "gpu_blocks", "block_size", "max_loras"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: expected more than 0")
    timing = Timing(
        decode_base_s=options.decode_ms / 1000,
        decode_per_sequence_s=options.decode_per_sequence_ms / 1000,
        prefill_tokens_per_s=options.prefill_tokens_per_s,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        block_size=options.block_size,
        gpu_blocks=options.gpu_blocks,
        max_loras=options.max_loras,
        speed=options.speed,
    )
    return Settings(
        host=options.host,
        port=options.port,
        served=tuple(options.served_model_name or [model or version]),
        version=version,
        name=options.name or environment.get("POD_NAME") or options.host,
        adapters=adapters,
        lora_enabled=options.enable_lora or bool(adapters),
        # vLLM refuses to start when one request could not fit into its cache.
        max_model_len=min(options.max_model_len, timing.gpu_blocks * timing.block_size),
        max_queued=options.max_num_queued_reqs,
        timing=timing,
        faults=faults,
        mean_tokens=options.answer_tokens,
        stream_interval=options.stream_interval,
        load_s=options.load_seconds / options.speed,
        drain_s=options.drain_seconds,
        shutdown_timeout_s=options.shutdown_timeout,
        seed=options.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulated_vllm", description="A simulated vLLM server: API, metrics and timing."
    )
    parser.add_argument(
        "command",
        nargs="*",
        metavar="serve MODEL",
        help="as in `vllm serve MODEL`; MODEL's last path component is the version",
    )
    vllm = parser.add_argument_group("flags of vLLM")
    vllm.add_argument("--host", default="127.0.0.1")
    vllm.add_argument("--port", type=int, default=8000)
    vllm.add_argument("--served-model-name", nargs="+", metavar="NAME")
    vllm.add_argument("--enable-lora", action="store_true")
    vllm.add_argument("--lora-modules", nargs="+", default=[], metavar="NAME=PATH")
    vllm.add_argument("--max-loras", type=int, default=_DEFAULT.max_loras)
    vllm.add_argument("--max-model-len", type=int, default=8192)
    vllm.add_argument("--max-num-seqs", type=int, default=_DEFAULT.max_num_seqs)
    vllm.add_argument("--max-num-batched-tokens", type=int, default=_DEFAULT.max_num_batched_tokens)
    vllm.add_argument("--max-num-queued-reqs", type=int)
    vllm.add_argument("--block-size", type=int, default=_DEFAULT.block_size)
    vllm.add_argument("--stream-interval", type=int, default=1, help="tokens per chunk")
    vllm.add_argument("--shutdown-timeout", type=float, default=30.0, metavar="SECONDS")
    vllm.add_argument("--seed", type=int, default=0)
    for flag in ("--trust-remote-code", "--enforce-eager"):
        vllm.add_argument(flag, action="store_true", help="accepted, without effect")
    for flag in ("--gpu-memory-utilization", "--max-cpu-loras", "--max-lora-rank", "--dtype"):
        vllm.add_argument(flag, help="accepted, without effect")

    ours = parser.add_argument_group("flags of the simulation")
    ours.add_argument("--version", help="what the model says it is; system_fingerprint")
    ours.add_argument("--name", help="name in x-served-by; default $POD_NAME, else the host")
    ours.add_argument("--gpu-blocks", type=int, default=_DEFAULT.gpu_blocks, help="KV blocks")
    ours.add_argument("--decode-ms", type=float, default=_DEFAULT.decode_base_s * 1000)
    ours.add_argument(
        "--decode-per-sequence-ms", type=float, default=_DEFAULT.decode_per_sequence_s * 1000
    )
    ours.add_argument("--prefill-tokens-per-s", type=float, default=_DEFAULT.prefill_tokens_per_s)
    ours.add_argument("--speed", type=float, default=1.0, help="divides every duration")
    ours.add_argument("--answer-tokens", type=int, default=48, help="mean natural length")
    ours.add_argument("--load-seconds", type=float, default=0.0, help="before it listens")
    ours.add_argument("--drain-seconds", type=float, default=2.0, help="accepts after SIGTERM")
    ours.add_argument(
        "--fault", action="append", default=[], help="e.g. slow_factor=1.5,error_rate=0.1"
    )
    return parser
