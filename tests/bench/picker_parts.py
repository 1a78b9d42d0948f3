"""The processes of the picker's benches, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from inference_picker.grpc_engine import choose_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = Path(__file__).parent


@dataclass
class Part:
    """A process of the bench."""

    process: asyncio.subprocess.Process
    line: str

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def rss_mib(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / (1 << 20)


@contextlib.asynccontextmanager
async def part(script: str, *args: str) -> AsyncIterator[Part]:
    """A script of this folder, from its first line of output on."""
    environment = {**os.environ, "PYTHONPATH": "tests"}
    choose_engine(environment)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / script), *args),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    try:
        yield Part(process, (await process.stdout.readline()).decode())
    finally:
        process.terminate()
        await process.wait()
