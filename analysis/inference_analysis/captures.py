"""One reading of Prometheus, from the command line's options to a cells file."""

from __future__ import annotations

import json
import math
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inference_analysis import checking
from inference_analysis.aliases import families as all_families
from inference_analysis.arms import Arms
from inference_analysis.capture_options import ArmsBy
from inference_analysis.capture_settings import CaptureSettings
from inference_analysis.collecting import cells_document, collected
from inference_analysis.errors import InputError
from inference_analysis.increments import Grid
from inference_analysis.observations import Arm
from inference_analysis.picker_arms import POD_LABEL, PickerArms, PickerBy
from inference_analysis.prometheus import Access, Prometheus

if TYPE_CHECKING:
    from pathlib import Path

    from inference_analysis.capture_options import CaptureOptions


def captured(
    options: CaptureOptions,
    *,
    stable_only: bool = False,
    look_id: str = "",
    fraction: float = 1.0,
    ledger: Path | None = None,
) -> tuple[str, tuple[str, ...]]:
    """The text of a cells file that `evaluate` takes, and remarks on the data.

    Raises InputError for an option or data that cannot be used, PrometheusError where the server
    was not reached, refused or answered in part, OSError for a file that cannot be read.
    """
    missing = [n for n in ("prometheus", "namespace", "rollout") if not getattr(options, n)]
    if missing:
        raise InputError(f"--{missing[0]}: missing. It says where the data come from")
    _check_arms(options)
    arms: Arms | PickerArms
    pod_label, node_label = options.pod_label, options.node_label
    hardware_label = options.hardware_label
    if options.arms_by is ArmsBy.PODS:
        arms = Arms(
            namespace=options.namespace,
            rollout=options.rollout,
            canary_hash=options.canary_hash,
            stable_hash=options.stable_hash,
            by=options.pods_by,
            hash_label=options.hash_label,
            namespace_label=options.namespace_label,
            pod_label=options.pod_label,
            stable_only=stable_only,
        )
        families = all_families(options.alias or ())
    else:
        arms = PickerArms(
            namespace=options.namespace,
            rollout=options.rollout,
            by=PickerBy(options.arms_by.value),
            canary_hash=options.canary_hash,
            stable_hash=options.stable_hash,
            canary_adapter=options.canary_adapter,
            stable_adapter=options.stable_adapter,
            control_adapter=options.control_adapter,
            pool=options.pool,
            with_control=not options.no_control,
            namespace_label=options.namespace_label,
        )
        families = arms.families
        pod_label, node_label, hardware_label = POD_LABEL, "", ""
        if options.alias or stable_only:
            raise InputError(
                "--alias and --stable-only: only with --arms pods. The picker's names are fixed"
            )
    warm_up = options.warm_up
    if warm_up is None:
        warm_up = 120.0 if options.arms_by is ArmsBy.PODS else 0.0
    rules = _object(options.policy, "--policy") if options.policy else {}
    until_s = _end(options.end)
    width = math.floor(options.minutes * 60.0 / options.window + 1e-9)
    if not width:
        raise InputError(
            f"--minutes {options.minutes:g}: less than one --window of {options.window:g} s"
        )
    start_s = until_s - width * options.window
    grid = Grid(
        since_s=start_s - max(warm_up, 2 * options.window),
        start_s=start_s,
        seconds=options.window,
        width=width,
    )
    settings = CaptureSettings(
        grid=grid,
        warm_up_s=warm_up,
        pod_label=pod_label,
        node_label=node_label,
        hardware_label=hardware_label,
        error_reasons=frozenset(options.error_reason or ("error",)),
        required=_required(rules, options.alias or (), {family.metric for family in families}),
        arms=(Arm.STABLE,) if stable_only else tuple(Arm),
        shared=arms.shared if isinstance(arms, PickerArms) else None,
        no_pods=arms.remedy(),
    )
    access = Access(
        url=_address(options.prometheus),
        timeout_s=options.timeout,
        bearer_token=_secret(options.bearer_token_file),
        basic=(options.basic_user, _secret(options.basic_password_file))
        if options.basic_user
        else None,
        ca_file=options.ca_file,
        client_certificate=_pair(options.client_certificate, options.client_key),
        tenant=options.tenant,
    )
    with Prometheus(access) as server:
        found = collected(server, arms, families, settings)
    document = cells_document(
        arms,
        found,
        look={"id": look_id or f"capture-{grid.end_s:.0f}", "fraction": fraction},
        policy=rules,
        ledger=_ledger(ledger),
    )
    text = json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n"
    # What is written is what evaluate takes.
    checking.parse(text, stable_only=stable_only)
    return text, tuple(found.notes)


def _check_arms(options: CaptureOptions) -> None:
    """Raises InputError for an option that these arms do not have: it would be ignored."""
    by = options.arms_by
    unfit = []
    if by is ArmsBy.PODS and options.pool:
        unfit.append("--pool: only with --arms adapters or versions")
    if by is not ArmsBy.ADAPTERS:
        given = {
            "--canary-adapter": options.canary_adapter,
            "--stable-adapter": options.stable_adapter,
            "--control-adapter": options.control_adapter,
            "--no-control": options.no_control,
        }
        unfit += [f"{name}: only with --arms adapters" for name, value in given.items() if value]
    elif options.control_adapter and options.no_control:
        unfit.append("--control-adapter: given beside --no-control")
    if unfit:
        raise InputError(*unfit)


def _end(text: str) -> float:
    """The end in whole seconds; raises InputError for what is no time, or in the future."""
    now = time.time()
    if not text:
        return float(math.floor(now))
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(
                f"--end {text!r}: expected seconds since the epoch or e.g. 2026-01-31T12:00:00Z"
            ) from None
        if moment.tzinfo is None:
            raise InputError(f"--end {text!r}: has no time zone. Add Z or +00:00") from None
        value = moment.timestamp()
    if not 0 <= value <= now + 1:
        raise InputError(f"--end {text!r}: not a time up to now ({now:.0f}). Is a clock wrong?")
    return float(math.floor(value))


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(f"--prometheus {text!r}: expected http://HOST or https://HOST")
    if parts.username or parts.password:
        raise InputError(
            "--prometheus: has credentials in it, which would show up in logs. Use --basic-user "
            "and --basic-password-file"
        )
    return text


def _secret(file: Path | None) -> str:
    text = file.read_text().strip() if file else ""
    if file and not text:
        raise InputError(f"{file}: empty. Expected a token or a password")
    return text


def _pair(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if (certificate is None) != (key is None):
        raise InputError("--client-certificate and --client-key: give both, or none")
    return (certificate, key) if certificate and key else None


def _object(file: Path, option: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{option} {file}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{option} {file}: expected a JSON object")
    return found


def _ledger(file: Path | None) -> Any:
    if file is None:
        return None
    found = _object(file, "--ledger")
    return found.get("ledger", found)


def _required(
    rules: dict[str, Any], aliases: list[str] | tuple[str, ...], known: set[str]
) -> set[str]:
    """Metrics that the user names: without them the verdict would be on something else.

    Raises InputError for a gate on latencies of a metric that is read from no series.
    """
    found = rules.get("gates")
    gates = [gate for gate in found if isinstance(gate, dict)] if isinstance(found, list) else []
    named = {str(gate.get("metric")) for gate in gates if gate.get("statistic") in {"mean", "tail"}}
    unknown = sorted(named - known)
    if unknown:
        raise InputError(
            f"--policy: a gate is on {unknown[0]}, which is read from no series. Add --alias "
            f"{unknown[0]}=NAME, or use one of {', '.join(sorted(known))}"
        )
    if any(gate.get("statistic") == "rate" for gate in gates):
        named.add("requests")
    return named | {text.partition("=")[0] for text in aliases}
