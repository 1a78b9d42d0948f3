"""CPU of one scheduling decision, prefix match and bookkeeping included, by size of the pool."""

from __future__ import annotations

import argparse
import statistics
import time
from random import Random

from inference_picker.pool import Endpoint, make_snapshot
from inference_picker.prompts import read_prompt
from inference_picker.scheduler import Question, Scheduler

SIZES = (8, 20, 100, 1000)
PROMPTS = {"200 B": 200, "8 KB": 8_000, "220 KB": 220_000}


def decisions(pods: int, prompt_bytes: int, runs: int) -> list[float]:
    """CPU seconds of each of so many decisions; every second prompt begins like another one."""
    scheduler = Scheduler(random=Random(1))
    pool = make_snapshot(
        Endpoint(address=f"10.{n // 250}.0.{n % 250}:80", models=frozenset({"m"}))
        for n in range(pods)
    )
    used = []
    for number in range(runs):
        document = {"prompt": f"{number % 50:05}" + "x" * (prompt_bytes - 5)}
        begun = time.thread_time()
        prompt = read_prompt(document, "m")
        scheduler.sync(pool, at=0.0)
        choice = scheduler.choose(pool, Question(target="m", prompt=prompt), at=0.0)
        flight = scheduler.take_off(choice, at=0.0)
        flight.first_byte(0.1)
        used.append(time.thread_time() - begun)
        flight.land()
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    arguments = parser.parse_args()
    print("median CPU of a decision, ms")
    print("pods    " + "".join(f"{name:>9}" for name in PROMPTS))
    for pods in SIZES:
        cells = (
            1e3 * statistics.median(decisions(pods, size, arguments.runs))
            for size in PROMPTS.values()
        )
        print(f"{pods:<8}" + "".join(f"{cell:>9.3f}" for cell in cells))


if __name__ == "__main__":
    main()
