"""How the quality of answers is compared: the section ``quality`` of `analysis.yaml`.

docs/quality.md describes every field; `analysis probe` has the same as options.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from inference_analysis.durations import Duration
from inference_analysis.errors import InputError
from inference_analysis.observations import Arm
from inference_analysis.prompts.endpoints import Endpoint, Limits
from inference_analysis.prompts.judging import JudgePlan
from inference_analysis.prompts.probing import ProbePlan
from inference_analysis.prompts.prompt_sets import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIGMAP_PREFIX: Final = "configmap/"
"""A prompt set's name that begins so is a ConfigMap of the Rollout's namespace."""
CONFIGMAP_KEY: Final = "prompts.jsonl"


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=False
    )


class EndpointDocument(_Model):
    """Where one version answers."""

    url: str = ""
    """Up to what precedes ``/v1``. Empty: the version's pods, by ``podPort``."""
    model: str = ""
    headers: dict[str, str] = {}

    @field_validator("url")
    @classmethod
    def _address(cls, text: str) -> str:
        return checked_address(text) if text else text


class JudgeDocument(_Model):
    """Who compares two answers."""

    url: str
    model: Annotated[str, Field(min_length=1)]
    token_file: Path | None = None
    headers: dict[str, str] = {}
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    nonsense_limit: Annotated[float, Field(ge=0, lt=0.5)] = 0.1

    @field_validator("url")
    @classmethod
    def _address(cls, text: str) -> str:
        return checked_address(text)


class QualityDocument(_Model):
    """The whole section."""

    prompt_set: Annotated[str, Field(min_length=1)] = EXAMPLE
    model: str = ""
    """For both versions, where they do not name one of their own."""
    canary: EndpointDocument = EndpointDocument()
    stable: EndpointDocument = EndpointDocument()
    pod_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 2.0
    timeout: Duration = 60.0
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    keep_answers: bool = True
    judge: JudgeDocument | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for arm in Arm:
            own = self.arm(arm)
            if not own.url and self.pod_port is None:
                message = f"{arm}.url: missing. Give it, or podPort to ask the version's pods"
                raise ValueError(message)
        return self

    def arm(self, arm: Arm) -> EndpointDocument:
        """Where a version answers."""
        return self.canary if arm is Arm.CANARY else self.stable

    def endpoints(
        self, pods: Mapping[Arm, Sequence[str]], adapters: Mapping[Arm, str] = MappingProxyType({})
    ) -> dict[Arm, Endpoint]:
        """Both versions.

        ``pods`` are the addresses of those without a ``url``; ``adapters`` the models of those that
        name none, the LoRA adapters that a release's revisions stand for.

        Raises InputError for a version without pods or a model, or an unreadable token.
        """
        found = {}
        for arm in Arm:
            own = self.arm(arm)
            urls = (own.url,) if own.url else tuple(pods.get(arm, ()))
            if not urls:
                raise InputError(f"quality: no ready pod of the {arm} version to ask")
            model = own.model or self.model or adapters.get(arm, "")
            if not model:
                raise InputError(f"quality.{arm}.model: missing. Give it, or model for both")
            found[arm] = Endpoint(
                name=arm.value,
                urls=urls,
                model=model,
                headers=own.headers,
                token=secret(self.token_file),
            )
        return found

    def plan(self) -> ProbePlan:
        """How the prompts are sent."""
        return ProbePlan(
            repeats=self.repeats,
            seed=self.seed,
            concurrency=self.concurrency,
            rate=self.rate,
            limits=Limits(timeout_s=self.timeout, retries=self.retries),
        )

    def judging(self) -> tuple[Endpoint, JudgePlan] | None:
        """Who judges, and how. Raises InputError for an unreadable token."""
        if self.judge is None:
            return None
        endpoint = Endpoint(
            name="judge",
            urls=(self.judge.url,),
            model=self.judge.model,
            headers=self.judge.headers,
            token=secret(self.judge.token_file),
        )
        plan = JudgePlan(
            concurrency=self.judge.concurrency,
            nonsense_limit=self.judge.nonsense_limit,
            limits=Limits(timeout_s=self.timeout, retries=self.retries),
        )
        return endpoint, plan


def checked_address(text: str) -> str:
    """The address itself. Raises ValueError for one that cannot be asked, or holds credentials."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = f"{text!r}: expected http://HOST or https://HOST"
        raise ValueError(message)
    if parts.username or parts.password:
        message = "has credentials in it, which would show up in logs. Use tokenFile"
        raise ValueError(message)
    return text


def secret(file: Path | None) -> str:
    """A token's file without its line end. Raises InputError for a file that can't be used."""
    if file is None:
        return ""
    try:
        text = file.read_text().strip()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}. Is the Secret mounted?") from error
    if not text:
        raise InputError(f"{file}: empty. Expected a token")
    return text
