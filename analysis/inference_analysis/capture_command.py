"""`inference-rollouts analysis capture`: from Prometheus to a cells file."""

from __future__ import annotations

import json
import math
import sys
import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from inference_analysis.arms import PodsBy


class ArmsBy(StrEnum):
    """Where the two arms are found."""

    PODS = "pods"
    ADAPTERS = "adapters"
    VERSIONS = "versions"


BAD_INPUT = 2
NO_ANSWER = 4


def capture(
    prometheus: Annotated[str, typer.Option(help="Address up to what precedes /api/v1.")],
    namespace: Annotated[str, typer.Option(help="The Rollout's namespace.")],
    rollout: Annotated[str, typer.Option(help="The Rollout's name.")],
    canary_hash: Annotated[str, typer.Option(help="pod-template-hash of the canary.")] = "",
    stable_hash: Annotated[str, typer.Option(help="pod-template-hash of stable.")] = "",
    arms_by: Annotated[
        ArmsBy,
        typer.Option(
            "--arms",
            help="pods: the model servers' series; adapters, versions: the picker's, for LoRA "
            "adapters and for versions inside one pool.",
        ),
    ] = ArmsBy.PODS,
    canary_adapter: Annotated[str, typer.Option(help="The new LoRA adapter's name.")] = "",
    stable_adapter: Annotated[str, typer.Option(help="The adapter that it replaces.")] = "",
    control_adapter: Annotated[
        str, typer.Option(help="Second alias of the stable adapter; NAME-control.")
    ] = "",
    no_control: Annotated[
        bool, typer.Option("--no-control", help="There is none: TTFT is for display only.")
    ] = False,
    stable_only: Annotated[
        bool, typer.Option("--stable-only", help="Stable's history, for `calibrate`.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Cells file, or - for standard output.")] = Path("-"),
    minutes: Annotated[float, typer.Option(min=0.1, help="How far to look back.")] = 30.0,
    window: Annotated[float, typer.Option(min=1.0, help="Length of a window in seconds.")] = 60.0,
    warm_up: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Seconds after a pod's start that are left out; 120, and 0 for the picker's "
            "series, which say themselves what is warm-up.",
        ),
    ] = None,
    end: Annotated[
        str, typer.Option(help="End of the last window: seconds since the epoch or ISO 8601; now.")
    ] = "",
    look_id: Annotated[str, typer.Option(help="Name of the look, e.g. the AnalysisRun's.")] = "",
    fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the planned pod-time that passed.")
    ] = 1.0,
    policy: Annotated[Path | None, typer.Option(help="JSON file: the policy.")] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="JSON file: the last verdict (evaluate --json).")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="METRIC=NAME of a series that is named otherwise.")
    ] = None,
    error_reason: Annotated[
        list[str] | None, typer.Option(help="finished_reason that counts as failed; error.")
    ] = None,
    pods_by: Annotated[PodsBy, typer.Option(help="What tells a pod's arm.")] = PodsBy.LABEL,
    hash_label: Annotated[
        str, typer.Option(help="Label with the hash.")
    ] = "rollouts_pod_template_hash",
    namespace_label: Annotated[str, typer.Option(help="Label with the namespace.")] = "namespace",
    pod_label: Annotated[str, typer.Option(help="Label with the pod's name.")] = "pod",
    node_label: Annotated[str, typer.Option(help="Label with the node's name.")] = "node",
    hardware_label: Annotated[
        str, typer.Option(help="Label with the GPU type; pods are compared within one.")
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 30.0,
    bearer_token_file: Annotated[Path | None, typer.Option(help="File with a token.")] = None,
    basic_user: Annotated[str, typer.Option(help="User of basic authentication.")] = "",
    basic_password_file: Annotated[Path | None, typer.Option(help="Its password.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="CA certificates (PEM).")] = None,
    client_certificate: Annotated[Path | None, typer.Option(help="For mutual TLS (PEM).")] = None,
    client_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    tenant: Annotated[str, typer.Option(help="X-Scope-OrgID of Mimir or Cortex.")] = "",
) -> None:
    """Write what Prometheus has on both versions to a cells file, for `evaluate`.

    Exit code 0: written; 2: an option or the data cannot be used; 4: Prometheus was not reached,
    refused or answered in part only. Nothing is written in the last two cases. Remarks on the data
    go to standard error.
    """
    from inference_analysis import checking  # noqa: PLC0415 - help is fast
    from inference_analysis.aliases import families as all_families  # noqa: PLC0415
    from inference_analysis.arms import Arms  # noqa: PLC0415
    from inference_analysis.capture_settings import CaptureSettings  # noqa: PLC0415
    from inference_analysis.collecting import cells_document, collected  # noqa: PLC0415
    from inference_analysis.errors import InputError, PrometheusError  # noqa: PLC0415
    from inference_analysis.increments import Grid  # noqa: PLC0415
    from inference_analysis.observations import Arm  # noqa: PLC0415
    from inference_analysis.picker_arms import POD_LABEL, PickerArms, PickerBy  # noqa: PLC0415
    from inference_analysis.prometheus import Access, Prometheus  # noqa: PLC0415

    try:
        arms: Arms | PickerArms
        if arms_by is ArmsBy.PODS:
            arms = Arms(
                namespace=namespace,
                rollout=rollout,
                canary_hash=canary_hash,
                stable_hash=stable_hash,
                by=pods_by,
                hash_label=hash_label,
                namespace_label=namespace_label,
                pod_label=pod_label,
                stable_only=stable_only,
            )
            families = all_families(alias or ())
        else:
            arms = PickerArms(
                namespace=namespace,
                rollout=rollout,
                by=PickerBy(arms_by.value),
                canary_hash=canary_hash,
                stable_hash=stable_hash,
                canary_adapter=canary_adapter,
                stable_adapter=stable_adapter,
                control_adapter=control_adapter,
                with_control=not no_control,
                namespace_label=namespace_label,
            )
            families = arms.families
            pod_label, node_label, hardware_label = POD_LABEL, "", ""
            if alias or stable_only:
                raise InputError(
                    "--alias and --stable-only: only with --arms pods. The picker's names are fixed"
                )
        if warm_up is None:
            warm_up = 120.0 if arms_by is ArmsBy.PODS else 0.0
        rules = _object(policy, "--policy") if policy else {}
        until_s = _end(end)
        width = math.floor(minutes * 60.0 / window + 1e-9)
        if not width:
            raise InputError(f"--minutes {minutes:g}: less than one --window of {window:g} s")
        start_s = until_s - width * window
        grid = Grid(
            since_s=start_s - max(warm_up, 2 * window),
            start_s=start_s,
            seconds=window,
            width=width,
        )
        settings = CaptureSettings(
            grid=grid,
            warm_up_s=warm_up,
            pod_label=pod_label,
            node_label=node_label,
            hardware_label=hardware_label,
            error_reasons=frozenset(error_reason or ("error",)),
            required=_required(rules, alias or (), {family.metric for family in families}),
            arms=(Arm.STABLE,) if stable_only else tuple(Arm),
            shared=arms.shared if isinstance(arms, PickerArms) else None,
            no_pods=arms.remedy(),
        )
        access = Access(
            url=_address(prometheus),
            timeout_s=timeout,
            bearer_token=_secret(bearer_token_file),
            basic=(basic_user, _secret(basic_password_file)) if basic_user else None,
            ca_file=ca_file,
            client_certificate=_pair(client_certificate, client_key),
            tenant=tenant,
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
        if str(output) == "-":
            sys.stdout.write(text)
        else:
            output.write_text(text)
    except PrometheusError as error:
        _say(str(error))
        raise typer.Exit(NO_ANSWER) from error
    except (InputError, OSError) as error:
        _say(str(error))
        raise typer.Exit(BAD_INPUT) from error
    for note in found.notes:
        _say(note)


def _say(text: str) -> None:
    for line in text.splitlines():
        print(f"inference-rollouts analysis capture: {line}", file=sys.stderr)  # noqa: T201


def _end(text: str) -> float:
    """The end in whole seconds; raises InputError for what is no time, or in the future."""
    from inference_analysis.errors import InputError  # noqa: PLC0415

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
    from inference_analysis.errors import InputError  # noqa: PLC0415

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
    from inference_analysis.errors import InputError  # noqa: PLC0415

    text = file.read_text().strip() if file else ""
    if file and not text:
        raise InputError(f"{file}: empty. Expected a token or a password")
    return text


def _pair(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    from inference_analysis.errors import InputError  # noqa: PLC0415

    if (certificate is None) != (key is None):
        raise InputError("--client-certificate and --client-key: give both, or none")
    return (certificate, key) if certificate and key else None


def _object(file: Path, option: str) -> dict[str, Any]:
    from inference_analysis.errors import InputError  # noqa: PLC0415

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
    from inference_analysis.errors import InputError  # noqa: PLC0415

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
