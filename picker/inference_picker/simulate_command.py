"""`inference-rollouts picker simulate`: policies on a modelled pool, before any of them is live."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_picker.ranking import Profile
    from inference_picker.simulation.comparison import Limits
    from inference_picker.simulation.replay import Setting
    from inference_picker.simulation.traces import TracedRequest
    from inference_picker.simulation.workloads import Workload

_FROM_CONFIG: Final = "config"


def simulate(
    workload: Annotated[
        str, typer.Option(help="Drawn traffic: 'list' names the workloads.")
    ] = "plain",
    trace: Annotated[
        Path | None,
        typer.Option(help="Recorded traffic instead: CSV or JSON lines, BurstGPT's CSV included."),
    ] = None,
    policies: Annotated[
        str, typer.Option(help="Policies with commas between them; 'list' names them.")
    ] = "load-cost,round-robin,two-choices,least-requests,go-default",
    config: Annotated[
        Path | None,
        typer.Option(help="EndpointPickerConfig to compare as well, as the policy 'config'."),
    ] = None,
    pods: Annotated[
        int | None, typer.Option(min=1, help="Pods of the pool; else the workload's, 8.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.01, help="Speed of a pod; 1 is near to an 8B model on an H100.")
    ] = 1.0,
    kv_tokens: Annotated[
        int, typer.Option(min=1024, help="Tokens that a pod's KV cache holds.")
    ] = 400_000,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Requests per second; else the workload's, or the trace's own times."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of drawn traffic.")] = 120.0,
    seeds: Annotated[int, typer.Option(min=1, help="Runs with different randomness.")] = 3,
    scrape_s: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds between two reads of a pod's metrics.")
    ] = None,
    watch_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of requests whose first token the picker sees."),
    ] = 0.05,
    misset: Annotated[
        float,
        typer.Option(min=0.01, help="Factor on every constant that the scheduler starts from."),
    ] = 1.0,
    broken_pod: Annotated[
        bool, typer.Option("--broken-pod", help="Let one pod answer 500 at once.")
    ] = False,
    capacity: Annotated[
        bool,
        typer.Option("--capacity", help="Find the highest rate within the limits, by bisection."),
    ] = False,
    ttft_limit_s: Annotated[float, typer.Option(min=0.001, help="Limit of TTFT.")] = 1.0,
    tpot_limit_s: Annotated[float, typer.Option(min=0.001, help="Limit of TPOT.")] = 0.05,
    plot: Annotated[
        Path | None, typer.Option(help="File for a plot of the quantiles: .png, .svg or .pdf.")
    ] = None,
    write_trace: Annotated[
        Path | None, typer.Option(help="File for the traffic of the first seed, and no more.")
    ] = None,
) -> None:
    """Replay traffic against policies on a modelled pool, and compare their latencies."""
    from inference_picker.errors import ConfigError  # noqa: PLC0415 - help must not pay for it
    from inference_picker.simulation.comparison import Limits  # noqa: PLC0415
    from inference_picker.simulation.policies import POLICIES  # noqa: PLC0415
    from inference_picker.simulation.workloads import WORKLOADS  # noqa: PLC0415

    if workload == "list":
        for each in WORKLOADS.values():
            typer.echo(f"{each.name:<12} {each.rate:>5g}/s  {each.what}")
        return
    if policies == "list":
        typer.echo("\n".join(POLICIES))
        return
    try:
        simulation = _simulation(
            workload=workload,
            trace=trace,
            config=config,
            names=tuple(each.strip() for each in policies.split(",") if each.strip()),
            limits=Limits(ttft_s=ttft_limit_s, tpot_s=tpot_limit_s),
            pods=pods,
            speed=speed,
            kv_tokens=kv_tokens,
            rate=rate,
            seconds=seconds,
            seeds=seeds,
            scrape_s=scrape_s,
            watch_share=watch_share,
            misset=misset,
            broken_pod=broken_pod,
        )
        if write_trace is not None:
            from inference_picker.simulation import traces  # noqa: PLC0415

            traces.write_trace(write_trace, simulation.traffic(0, None))
            typer.echo(f"{write_trace}: written")
            return
        simulation.report(with_capacity=capacity, plot=plot)
    except ConfigError as error:
        print(f"inference-rollouts picker simulate: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(2) from error


def _simulation(
    *,
    workload: str,
    trace: Path | None,
    config: Path | None,
    names: tuple[str, ...],
    limits: Limits,
    pods: int | None,
    speed: float,
    kv_tokens: int,
    rate: float | None,
    seconds: float,
    seeds: int,
    scrape_s: float | None,
    watch_share: float,
    misset: float,
    broken_pod: bool,
) -> _Simulation:
    from inference_picker.config import load_config  # noqa: PLC0415
    from inference_picker.errors import ConfigError  # noqa: PLC0415
    from inference_picker.plugins import unknown  # noqa: PLC0415
    from inference_picker.simulation.policies import POLICIES  # noqa: PLC0415
    from inference_picker.simulation.replay import Setting  # noqa: PLC0415
    from inference_picker.simulation.traces import read_trace  # noqa: PLC0415
    from inference_picker.simulation.workloads import WORKLOADS  # noqa: PLC0415

    known = dict(POLICIES)
    if config is not None:
        profile = load_config(config).profile
        known[_FROM_CONFIG] = lambda: profile
        names = (_FROM_CONFIG, *names)
    for name in names:
        if name not in known:
            raise ConfigError(f"--policies: {unknown(name, known, 'policy')}")
    if workload not in WORKLOADS:
        raise ConfigError(f"--workload: {unknown(workload, WORKLOADS, 'workload')}")
    drawn = WORKLOADS[workload]
    hardware = tuple(
        replace(each.slower(1 / speed), kv_tokens=kv_tokens)
        for each in (drawn.pods if pods is None else [drawn.pods[0]] * pods)
    )
    return _Simulation(
        workload=drawn,
        trace=None if trace is None else (trace.name, read_trace(trace)),
        policies={name: known[name] for name in names},
        limits=limits,
        rate=rate,
        seconds=seconds,
        seeds=seeds,
        setting=Setting(
            pods=hardware,
            scrape_s=drawn.scrape_s if scrape_s is None else scrape_s,
            watch_share=watch_share,
            misset=misset,
            broken=0 if broken_pod else None,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Simulation:
    """What is run, and how it is told."""

    workload: Workload
    trace: tuple[str, list[TracedRequest]] | None
    policies: dict[str, Callable[[], Profile]]
    limits: Limits
    rate: float | None
    seconds: float
    seeds: int
    setting: Setting

    def traffic(self, seed: int, rate: float | None) -> list[TracedRequest]:
        """The requests of one run, at another rate where one is asked for."""
        wanted = self.rate if rate is None else rate
        if self.trace is None:
            return self.workload.requests(seed=seed, duration_s=self.seconds, rate=wanted)
        requests = self.trace[1]
        if wanted is None:
            return requests
        factor = self.own_rate / wanted
        return [replace(each, at=each.at * factor) for each in requests]

    @property
    def own_rate(self) -> float:
        """Requests per second as drawn or recorded."""
        if self.trace is None:
            return self.rate or self.workload.rate
        requests = self.trace[1]
        return len(requests) / max(1.0, requests[-1].at - requests[0].at)

    def report(self, *, with_capacity: bool, plot: Path | None) -> None:
        """Run everything, and tell."""
        from inference_picker.simulation import presenting  # noqa: PLC0415
        from inference_picker.simulation.comparison import WARMUP, compare  # noqa: PLC0415

        runs: list[Any] = [
            (self.traffic(seed, None), replace(self.setting, seed=seed))
            for seed in range(self.seeds)
        ]
        warmup_s = WARMUP * (runs[0][0][-1].at if runs[0][0] else 0.0)
        title = self._title(len(runs[0][0]))
        typer.echo(title)
        rows = compare(
            runs,
            tuple(self.policies),
            limits=self.limits,
            warmup_s=warmup_s,
            profiles=self.policies,
        )
        capacities = (
            {name: self._capacity(name) for name in self.policies} if with_capacity else None
        )
        typer.echo(presenting.table(rows, capacities))
        typer.echo(
            f"times in ms; limits: TTFT {1e3 * self.limits.ttft_s:g} ms and TPOT "
            f"{1e3 * self.limits.tpot_s:g} ms"
        )
        if plot is not None:
            presenting.plot(plot, title, rows)
            typer.echo(f"{plot}: written")

    def _title(self, requests: int) -> str:
        name = self.workload.name if self.trace is None else self.trace[0]
        what = f" ({self.workload.what})" if self.trace is None else ""
        pods = len(self.setting.pods)
        rate = self.rate or self.own_rate
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "1 seed"
        return f"{name}{what}: {requests} requests at {rate:.3g}/s, {pods} pods, {seeds}"

    def _capacity(self, name: str) -> float:
        from inference_picker.simulation.comparison import (  # noqa: PLC0415
            WARMUP,
            capacity,
        )
        from inference_picker.simulation.policies import index_of  # noqa: PLC0415
        from inference_picker.simulation.replay import replay  # noqa: PLC0415

        def meets(rate: float) -> float:
            requests = self.traffic(0, rate)
            result = replay(
                requests,
                self.policies[name](),
                self.setting,
                warmup_s=WARMUP * requests[-1].at,
                index=index_of(name),
            )
            return result.meets(ttft_s=self.limits.ttft_s, tpot_s=self.limits.tpot_s)

        start = self.own_rate
        return capacity(meets, low=start / 8, high=start)
