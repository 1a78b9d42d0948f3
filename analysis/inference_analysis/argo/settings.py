"""How one Rollout is analysed: `analysis.yaml`, over the team's defaults.

docs/analysis.md describes every field. Durations are written as Argo writes them: 30s, 10m, 1h30m.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from inference_analysis.arms import PodsBy
from inference_analysis.durations import Duration, DurationOrNone
from inference_analysis.errors import InputError
from inference_analysis.prometheus import Access
from inference_analysis.prompts.settings import QualityDocument
from inference_analysis.schema import PolicyDocument

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULTS_CONFIGMAP: Final = "inference-rollouts-analysis"
"""ConfigMap of the Rollout's namespace with the team's defaults."""
DEFAULTS_KEY: Final = "analysis.yaml"


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=False
    )


class PrometheusDocument(_Model):
    """Where the measurements are, and how to be let in."""

    url: str
    timeout: Duration = 30.0
    chunk: Duration = 3600.0
    bearer_token_file: Path | None = None
    basic_user: str = ""
    basic_password_file: Path | None = None
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    tenant: str = ""

    @field_validator("url")
    @classmethod
    def _address(cls, text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = f"{text!r}: expected http://HOST or https://HOST"
            raise ValueError(message)
        if parts.username or parts.password:
            raise ValueError(
                "has credentials in it, which would show up in logs. Use basicUser and "
                "basicPasswordFile"
            )
        return text

    def access(self) -> Access:
        """How the server is asked; reads the files. Raises InputError."""
        if (self.client_certificate is None) != (self.client_key is None):
            raise InputError("prometheus: give both clientCertificate and clientKey, or none")
        pair = None
        if self.client_certificate is not None and self.client_key is not None:
            pair = (self.client_certificate, self.client_key)
        for file in (self.ca_file, *(pair or ())):
            if file is not None and not file.is_file():
                raise InputError(f"prometheus: {file} is no file. Is the Secret mounted?")
        return Access(
            url=self.url,
            timeout_s=self.timeout,
            chunk_s=self.chunk,
            bearer_token=_secret(self.bearer_token_file),
            basic=(self.basic_user, _secret(self.basic_password_file)) if self.basic_user else None,
            ca_file=self.ca_file,
            client_certificate=pair,
            tenant=self.tenant,
        )


class PodsDocument(_Model):
    """What tells a pod's arm, and the labels that Prometheus has for pods."""

    by: PodsBy = PodsBy.LABEL
    hash_label: str = "rollouts_pod_template_hash"
    namespace_label: str = "namespace"
    pod_label: str = "pod"
    node_label: str = "node"
    hardware_label: str = ""


class ArmsDocument(_Model):
    """Where the two versions are told apart (docs/statistics.md)."""

    by: Literal["pods", "adapters", "versions"] = "pods"
    """The model servers' series; or the picker's, for LoRA adapters and for versions inside one
    pool."""
    control: bool = True
    """adapters: whether the stable adapter is loaded a second time as the reference."""
    control_adapter: str = ""
    """Its name; by default the stable adapter's and ``-control``."""
    pool: str = ""
    """adapters, versions: the InferencePool, where several have targets of these names."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        """What these arms do not have would be ignored without a word."""
        if self.by == "pods" and self.pool:
            message = f"pool {self.pool!r}: only with by: adapters or versions"
            raise ValueError(message)
        if self.by != "adapters" and (self.control_adapter or not self.control):
            message = f"controlAdapter and control: false: only with by: adapters, not {self.by}"
            raise ValueError(message)
        if self.control_adapter and not self.control:
            message = f"controlAdapter {self.control_adapter!r}: given beside control: false"
            raise ValueError(message)
        return self


class WindowsDocument(_Model):
    """The time grid."""

    length: Duration = 60.0
    warm_up: DurationOrNone = 120.0
    lookback: Duration = 7200.0
    """The most that one look reads."""


class LookDocument(_Model):
    """When a step's AnalysisRun looks."""

    after: Duration = 600.0
    """Time of the AnalysisRun before its look."""
    every: Duration = 30.0
    """Between two checks for gross harm."""
    recent: Duration = 900.0
    """What such a check reads."""


class BackgroundDocument(_Model):
    """When a background AnalysisRun looks."""

    looks: Annotated[int, Field(ge=0, le=20)] = 4
    over: Duration = 3600.0


class AnalysisDocument(_Model):
    """The whole of `analysis.yaml`."""

    prometheus: PrometheusDocument
    pods: PodsDocument = PodsDocument()
    arms: ArmsDocument = ArmsDocument()
    windows: WindowsDocument = WindowsDocument()
    look: LookDocument = LookDocument()
    background: BackgroundDocument = BackgroundDocument()
    aliases: list[str] = []
    error_reasons: list[str] = ["error"]
    ledger: Literal["live", "shadow"] = "live"
    on_inconclusive: Literal["pause", "proceed", "abort"] = "pause"
    max_wait: DurationOrNone = 0.0
    """How long an inconclusive verdict waits for a person before ``onInconclusive`` applies."""
    retry_for: DurationOrNone = 120.0
    """How long a Prometheus that does not answer, or has no data yet, is asked again."""
    quality: QualityDocument | None = None
    """Prompts for both versions before each look (docs/quality.md)."""
    policy: PolicyDocument = PolicyDocument()

    def policy_values(self) -> dict[str, Any]:
        """The policy as it stands in a cells file."""
        found: dict[str, Any] = self.policy.model_dump(mode="json", by_alias=True)
        return found


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``base``: objects are merged, everything else is replaced."""
    found = dict(base)
    for key, value in over.items():
        before = found.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        found[key] = merged(before, value) if both and before is not None else value
    return found


def tree(text: str, where: str) -> dict[str, Any]:
    """A YAML object. Raises InputError for text that is none."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: no YAML: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected an object with prometheus, look, policy, …")
    return found


def analysis_document(values: Mapping[str, Any], where: str = DEFAULTS_KEY) -> AnalysisDocument:
    """The settings, checked. Raises InputError with one ``path: problem`` for each fault."""
    try:
        return AnalysisDocument.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{where}: {'.'.join(map(str, item['loc'])) or '(all)'}: {item['msg']}"
            for item in error.errors()
        ]
        raise InputError(*problems) from error


def _secret(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text().strip()
    except OSError as error:
        raise InputError(f"prometheus: {file}: {error.strerror}. Is the Secret mounted?") from error
    if not text:
        raise InputError(f"{file}: empty. Expected a token or a password")
    return text
