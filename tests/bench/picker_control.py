"""The control arm against an identical canary: mean TTFT of the two over many runs.

The very classes of the picker on a modelled pool: eight stable pods, and a canary that is the same
version. Requests of neither arm go to other pods and are left out. Small shares get more runs, so
that each row has about as many requests. The target is an interval of 95 % within 2 % of 1; where
it is missed the exit status is 1.
"""

from __future__ import annotations

import argparse
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from bench.figures import interval
from inference_picker.messages import Sample
from inference_picker.simulation.engine import Hardware
from inference_picker.simulation.policies import DEFAULT, POLICIES
from inference_picker.simulation.replay import Canary, Setting, replay
from inference_picker.simulation.workloads import WORKLOADS

STABLE = 8
PERCENTS = (5, 10, 25)
TRAFFIC = ("plain", "session", "prefix")
LIMIT = 0.02
WARMUP = 0.3
LEAST_SEEDS = 30


def ratio_of(seed: int, *, name: str, percent: int, duration_s: float) -> float | None:
    """Mean TTFT of canary / control in one run; None where the arm is marked."""
    workload = WORKLOADS[name]
    # As many canary pods as Argo Rollouts starts for the weight.
    pods = math.ceil(STABLE * percent / 100)
    setting = Setting(
        pods=(Hardware(),) * (STABLE + pods),
        canary=Canary(percent=percent, pods=pods, is_sticky=name == "session", alone=True),
        watch_share=1.0,  # as both arms are
        seed=seed,
    )
    trace = workload.requests(seed=seed, duration_s=duration_s)
    arms = replay(trace, POLICIES[DEFAULT](), setting, warmup_s=WARMUP * duration_s).arms
    if Sample.CONTROL not in arms:
        return None
    return float(arms[Sample.CANARY].mean() / arms[Sample.CONTROL].mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="at 5 %%")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--traffic", default=",".join(TRAFFIC))
    arguments = parser.parse_args()
    print("traffic   share  runs  canary/control, mean TTFT (95 %)")
    missed = []
    with ProcessPoolExecutor(max_workers=2) as pool:
        for name in arguments.traffic.split(","):
            for percent in PERCENTS:
                runs = range(max(LEAST_SEEDS, arguments.seeds * PERCENTS[0] // percent))
                work = partial(ratio_of, name=name, percent=percent, duration_s=arguments.seconds)
                found = list(pool.map(work, runs))
                row = f"{name:<9} {percent:>4} %  {len(runs):>4}"
                logs = np.log([each for each in found if each is not None])
                if len(logs) < len(found):
                    print(f"{row}  marked as unmatched", flush=True)
                    continue
                mean, half = interval(logs.tolist())
                low, high = np.exp(mean - half), np.exp(mean + half)
                print(f"{row}  {np.exp(mean):.3f} ({low:.3f} to {high:.3f})", flush=True)
                if low < 1 - LIMIT or high > 1 + LIMIT:
                    missed.append(f"{name} at {percent} %")
    print("missed: " + "; ".join(missed) if missed else "all within 2 %")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
