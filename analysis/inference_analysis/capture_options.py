"""What `capture` and `replay` must know to read Prometheus: one set of options for both."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads it from the fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from inference_analysis.arms import PodsBy

if TYPE_CHECKING:
    from collections.abc import Callable


class ArmsBy(StrEnum):
    """Where the two arms are found."""

    PODS = "pods"
    ADAPTERS = "adapters"
    VERSIONS = "versions"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    """As given on the command line."""

    prometheus: Annotated[str, typer.Option(help="Address up to what precedes /api/v1.")] = ""
    namespace: Annotated[str, typer.Option(help="The Rollout's namespace.")] = ""
    rollout: Annotated[str, typer.Option(help="The Rollout's name.")] = ""
    canary_hash: Annotated[str, typer.Option(help="pod-template-hash of the canary.")] = ""
    stable_hash: Annotated[str, typer.Option(help="pod-template-hash of stable.")] = ""
    arms_by: Annotated[
        ArmsBy,
        typer.Option(
            "--arms",
            help="pods: the model servers' series; adapters, versions: the picker's, for LoRA "
            "adapters and for versions inside one pool.",
        ),
    ] = ArmsBy.PODS
    canary_adapter: Annotated[str, typer.Option(help="The new LoRA adapter's name.")] = ""
    stable_adapter: Annotated[str, typer.Option(help="The adapter that it replaces.")] = ""
    control_adapter: Annotated[
        str, typer.Option(help="Second alias of the stable adapter; NAME-control.")
    ] = ""
    pool: Annotated[
        str, typer.Option(help="The InferencePool, where several have targets of these names.")
    ] = ""
    no_control: Annotated[
        bool, typer.Option("--no-control", help="There is none: TTFT is for display only.")
    ] = False
    minutes: Annotated[float, typer.Option(min=0.1, help="How far to look back.")] = 30.0
    window: Annotated[float, typer.Option(min=1.0, help="Length of a window in seconds.")] = 60.0
    warm_up: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Seconds after a pod's start that are left out; 120, and 0 for the picker's "
            "series, which say themselves what is warm-up.",
        ),
    ] = None
    end: Annotated[
        str, typer.Option(help="End of the last window: seconds since the epoch or ISO 8601; now.")
    ] = ""
    policy: Annotated[Path | None, typer.Option(help="JSON file: the policy.")] = None
    alias: Annotated[
        list[str] | None, typer.Option(help="METRIC=NAME of a series that is named otherwise.")
    ] = None
    error_reason: Annotated[
        list[str] | None, typer.Option(help="finished_reason that counts as failed; error.")
    ] = None
    pods_by: Annotated[PodsBy, typer.Option(help="What tells a pod's arm.")] = PodsBy.LABEL
    hash_label: Annotated[str, typer.Option(help="Label with the hash.")] = (
        "rollouts_pod_template_hash"
    )
    namespace_label: Annotated[str, typer.Option(help="Label with the namespace.")] = "namespace"
    pod_label: Annotated[str, typer.Option(help="Label with the pod's name.")] = "pod"
    node_label: Annotated[str, typer.Option(help="Label with the node's name.")] = "node"
    hardware_label: Annotated[
        str, typer.Option(help="Label with the GPU type; pods are compared within one.")
    ] = ""
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 30.0
    bearer_token_file: Annotated[Path | None, typer.Option(help="File with a token.")] = None
    basic_user: Annotated[str, typer.Option(help="User of basic authentication.")] = ""
    basic_password_file: Annotated[Path | None, typer.Option(help="Its password.")] = None
    ca_file: Annotated[Path | None, typer.Option(help="CA certificates (PEM).")] = None
    client_certificate: Annotated[Path | None, typer.Option(help="For mutual TLS (PEM).")] = None
    client_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None
    tenant: Annotated[str, typer.Option(help="X-Scope-OrgID of Mimir or Cortex.")] = ""


def with_capture_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options beside its own; it gets them together, as ``options``."""
    hints = get_type_hints(CaptureOptions, include_extras=True)
    shared = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=hints[each.name],
        )
        for each in fields(CaptureOptions)
    ]
    own_hints = get_type_hints(command, include_extras=True)
    own = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=own_hints[name])
        for name, each in inspect.signature(command).parameters.items()
        if name != "options"
    ]

    def wrapped(**given: Any) -> None:
        options = CaptureOptions(**{each.name: given.pop(each.name) for each in shared})
        command(options=options, **given)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    together = [*own, *shared]
    wrapped.__signature__ = inspect.Signature(together)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in together}
    return wrapped
