"""`inference-rollouts picker check-config`: what a configuration file amounts to."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inference_picker.config import PickerConfig
    from inference_picker.ranking import Named


def check_config(
    file: Annotated[Path, typer.Argument(help="EndpointPickerConfig, YAML.", exists=False)],
) -> None:
    """Read a scheduler configuration and say what it amounts to; exit status 2 if it is wrong."""
    from inference_picker.config import load_config  # noqa: PLC0415 - help must not pay for it
    from inference_picker.errors import ConfigError  # noqa: PLC0415

    try:
        config = load_config(file)
    except ConfigError as error:
        print(f"inference-rollouts picker check-config: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(2) from error
    print("\n".join(_lines(file, config)))  # noqa: T201


def _lines(file: Path, config: PickerConfig) -> list[str]:
    profile, rules = config.profile, config.rules
    lines = [f"{file}: good", "", f"profile {profile.name}"]
    lines += [f"  filter  {each.name}{_origin(each)}" for each in profile.filters]
    lines += [
        f"  scorer  {each.name}  weight {each.weight:g}{_origin(each)}" for each in profile.scorers
    ]
    lines += [f"  picker  {profile.picker.name}{_origin(profile.picker)}", ""]
    lines.append(
        f"ejection       {rules.consecutive} failures in a row, or {rules.rate:.0%} of "
        f"{rules.window}; {rules.base_s:g} s and twice as long each time, up to {rules.max_s:g} s; "
        f"at most {rules.max_part:.0%} of the pool; slow start {rules.slow_start_s:g} s"
    )
    limits = config.thresholds
    each = "" if limits.in_flight is None else f", or {limits.in_flight} requests in flight"
    lines.append(
        f"saturation     mean of queue / {limits.queue_depth} or KV usage / "
        f"{limits.kv_usage:g}{each} at 1"
    )
    queue = config.queue
    lines.append(
        "flow control   off: requests of negative priority get 429 while saturated"
        if queue is None
        else f"flow control   up to {queue.requests} requests and {queue.bytes:,} bytes wait, "
        f"{queue.ttl_s:g} s at most"
    )
    if config.notes:
        lines += ["", "named, without effect:", *(f"  {each}" for each in config.notes)]
    return lines


def _origin(named: Named) -> str:
    """Where a user's own plugin comes from."""
    kind = type(named.plugin)
    own = kind.__module__.partition(".")[0] != __package__
    return f"  ({kind.__module__}.{kind.__qualname__})" if own else ""
