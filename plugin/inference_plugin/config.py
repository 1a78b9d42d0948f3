"""The plugin's configuration in a Rollout, read from JSON and validated.

It stands under ``spec.strategy.canary.trafficRouting.plugins["inference-rollouts/router"]``.
Every message names the JSON path. docs/plugin.md has the table.
"""

from __future__ import annotations

import enum
import functools
import json
from typing import Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from inference_common.kube import (
    GRPCROUTE,
    HTTPROUTE,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
)
from inference_common.names import PLUGIN_NAME
from inference_plugin.errors import ConfigError
from inference_plugin.gatewayapi_keys import REFUSED

PATH: Final = f'spec.strategy.canary.trafficRouting.plugins["{PLUGIN_NAME}"]'
_POOL_GROUPS: Final = (INFERENCEPOOL.group, INFERENCEPOOL_X.group)
_REWRITE_GROUPS: Final = (INFERENCEMODELREWRITE.group, INFERENCEMODELREWRITE_X.group)
_ROUTE_KEYS: Final = ("httpRoute", "httpRoutes", "grpcRoute", "grpcRoutes")
_MODEL_KEYS: Final = ("inferenceModel", "inferenceModelRewrite", "modelList")
_FIELD: Final = r"[A-Za-z_][A-Za-z0-9_-]*"


class DestinationMode(enum.StrEnum):
    """How a pod-template-hash becomes a destination (design, section 1)."""

    HASH_ADDRESSED = "hash-addressed"
    NAMED = "named"
    STATIC = "static"
    MODEL = "model"
    SHARED_POOL = "shared-pool"


class ZeroWeight(enum.StrEnum):
    """What becomes of a backendRef whose share is zero."""

    KEEP = "keep"
    REMOVE = "remove"


class DriftPolicy(enum.StrEnum):
    """What is done when somebody else changes a managed weight."""

    REPAIR = "repair"
    REPORT = "report"
    ADOPT = "adopt"


class OnEnd(enum.StrEnum):
    """What becomes of the traffic when the Rollout, or its trafficRouting, goes away."""

    STABLE = "stable"
    KEEP = "keep"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MatchConfig(_Strict):
    """A rule of a route by one of its matches, which may say more than what is given here.

    ``path``, ``pathType`` and ``headers`` are of HTTPRoutes, ``service`` of GRPCRoutes, ``method``
    of both.
    """

    path: str | None = Field(default=None, pattern="^/")
    pathType: Literal["PathPrefix", "Exact", "RegularExpression"] | None = None  # noqa: N815
    method: str | None = Field(default=None, min_length=1)
    service: str | None = Field(default=None, min_length=1)
    headers: dict[str, str] = Field(default_factory=dict)

    @field_validator("headers")
    @classmethod
    def _lower(cls, headers: dict[str, str]) -> dict[str, str]:
        return {name.lower(): value for name, value in headers.items()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.model_dump(exclude_defaults=True):
            raise ValueError("a rule is given by its name, or by at least one part of a match")
        return self

    def __str__(self) -> str:
        """For a message."""
        return json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True)

    def __hash__(self) -> int:
        """As a value; the headers are a dictionary."""
        return hash(str(self))


class RouteConfig(_Strict):
    """One route; ``rules`` choose its rules, none means those with the managed refs."""

    name: str = Field(min_length=1)
    rules: tuple[str | MatchConfig, ...] = ()
    useHeaderRoutes: Literal[True] = True  # noqa: N815


class StaticConfig(_Strict):
    """Fixed names of the stable and the canary backend."""

    kind: Literal["InferencePool", "Service"] = "InferencePool"
    group: str | None = None
    stable: str = Field(min_length=1)
    canary: str = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stable == self.canary:
            raise ValueError(f"stable and canary must differ, both are {self.stable!r}")
        if self.kind == "InferencePool" and self.group not in {None, *_POOL_GROUPS}:
            raise ValueError(f"group must be one of {', '.join(_POOL_GROUPS)}, not {self.group!r}")
        if self.kind == "Service" and self.group not in {None, "", "core"}:
            raise ValueError(f"group of a Service must be left out, not {self.group!r}")
        return self


class ModelRewriteConfig(_Strict):
    """One rule of an InferenceModelRewrite: by the model that it matches, or by its index.

    Without ``group`` it is llm-d.ai where that is served, else the older one, as upstream's
    picker chooses. Without ``model`` and ``rule`` there must be just one rule.
    """

    name: str = Field(min_length=1)
    group: str | None = None
    model: str | None = Field(default=None, min_length=1)
    rule: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.group not in {None, *_REWRITE_GROUPS}:
            raise ValueError(
                f"group must be one of {', '.join(_REWRITE_GROUPS)}, not {self.group!r}"
            )
        if self.model is not None and self.rule is not None:
            raise ValueError("at most one of model and rule may be given, found both")
        return self


class ModelListConfig(_Strict):
    """A weighted list anywhere below the spec of one object of any kind.

    ``listPath`` leads from the object's root to the list by field names, as ``spec.versions``.
    """

    kind: str = Field(min_length=1)
    group: str = Field(min_length=1)
    name: str = Field(min_length=1)
    listPath: str = Field(pattern=rf"^spec(\.{_FIELD})+$")  # noqa: N815
    nameKey: str = Field(default="name", pattern=f"^{_FIELD}$")  # noqa: N815
    weightKey: str = Field(default="weight", pattern=f"^{_FIELD}$")  # noqa: N815


class ProofConfig(_Strict):
    """What must be counted before a step is verified.

    ``query`` is PromQL that gives one sample for each version, the number of requests in
    ``$window``; ``label`` is the one whose value is a pod-template-hash or a destination's name.
    """

    query: str = Field(min_length=1, max_length=2000)
    label: str = Field(default="version", pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    minRequests: int = Field(default=100, ge=10, le=1_000_000)  # noqa: N815
    timeoutSeconds: float = Field(default=120.0, ge=1, le=3600)  # noqa: N815

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "$window" not in self.query:
            raise ValueError("query must count over $window, as increase(…[$window])")
        return self


class RouterConfig(_Strict):
    """The whole configuration; names are those of the JSON."""

    httpRoute: str | None = Field(default=None, min_length=1)  # noqa: N815 - the JSON's name
    httpRoutes: tuple[RouteConfig, ...] = ()  # noqa: N815
    grpcRoute: str | None = Field(default=None, min_length=1)  # noqa: N815
    grpcRoutes: tuple[RouteConfig, ...] = ()  # noqa: N815
    inferenceModel: str | None = Field(default=None, min_length=1)  # noqa: N815
    inferenceModelRewrite: ModelRewriteConfig | None = None  # noqa: N815
    modelList: ModelListConfig | None = None  # noqa: N815
    namespace: str | None = Field(default=None, min_length=1)
    inferencePools: tuple[str, str] | None = None  # noqa: N815
    sharedPool: str | None = Field(default=None, min_length=1)  # noqa: N815
    pickerPort: int = Field(default=9090, ge=1, le=65535)  # noqa: N815
    poolGroup: str = INFERENCEPOOL.group  # noqa: N815
    destinationKind: Literal["InferencePool", "Service"] | None = None  # noqa: N815
    static: StaticConfig | None = None
    settleSeconds: float = Field(default=2.0, ge=0, le=60)  # noqa: N815
    holdSeconds: float = Field(default=30.0, ge=0, le=600)  # noqa: N815
    zeroWeight: ZeroWeight = ZeroWeight.KEEP  # noqa: N815
    dataPlaneProof: ProofConfig | None = None  # noqa: N815
    drift: DriftPolicy = DriftPolicy.REPAIR
    onEnd: OnEnd = OnEnd.STABLE  # noqa: N815
    disableInProgressLabel: Literal[True] = True  # noqa: N815

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_objects()
        self._check_destinations()
        return self

    def _check_objects(self) -> None:
        keys = (*_ROUTE_KEYS, *_MODEL_KEYS, "sharedPool")
        given = [key for key in keys if getattr(self, key)]
        # A Rollout may stand behind an HTTPRoute and a GRPCRoute at once.
        kinds = {key[:4] if key in _ROUTE_KEYS else key for key in given}
        if not given or len(kinds) != len(given) or (self._lone_key and len(given) > 1):
            found = "none of them" if not given else " and ".join(given)
            raise ValueError(
                f"exactly one of {', '.join(keys[:-1])} and {keys[-1]} is needed (or one for each "
                f"kind of route), found {found}"
            )
        for key in ("httpRoutes", "grpcRoutes"):
            names = [route.name for route in getattr(self, key)]
            if len(set(names)) != len(names):
                raise ValueError(f"{key} names a route twice: {', '.join(names)}")

    def _check_destinations(self) -> None:
        given = [
            key for key in ("inferencePools", "destinationKind", "static") if getattr(self, key)
        ]
        if len(given) > 1:
            raise ValueError(
                "at most one of inferencePools, destinationKind and static may be given, "
                f"found {' and '.join(given)}"
            )
        if self.model_key and given:
            raise ValueError(
                f"{given[0]} does not go with {self.model_key}: its targets are named by the "
                "annotation of each revision's pod template"
            )
        if self.sharedPool and given:
            raise ValueError(
                f"{given[0]} does not go with sharedPool: its versions are told apart by the "
                "pod-template-hash"
            )
        if self.sharedPool and self.namespace:
            raise ValueError("namespace does not go with sharedPool: it is the Rollout's own")
        if self.inferencePools and self.inferencePools[0] == self.inferencePools[1]:
            raise ValueError(
                f"inferencePools must name two pools, found {self.inferencePools[0]!r} twice"
            )
        if self.poolGroup not in _POOL_GROUPS:
            raise ValueError(
                f"poolGroup must be one of {', '.join(_POOL_GROUPS)}, found {self.poolGroup!r}"
            )

    @functools.cached_property
    def routes(self) -> tuple[tuple[str, RouteConfig], ...]:
        """Kind and name of each route, however they were written."""
        http = (RouteConfig(name=self.httpRoute),) if self.httpRoute else self.httpRoutes
        grpc = (RouteConfig(name=self.grpcRoute),) if self.grpcRoute else self.grpcRoutes
        return (
            *((HTTPROUTE.kind, route) for route in http),
            *((GRPCROUTE.kind, route) for route in grpc),
        )

    @property
    def model_key(self) -> str | None:
        """The key that names a model split; None where routes carry the weights."""
        return next((key for key in _MODEL_KEYS if getattr(self, key)), None)

    @property
    def _lone_key(self) -> str | None:
        """The key of an object that carries the weights by itself."""
        return "sharedPool" if self.sharedPool else self.model_key

    @functools.cached_property
    def mode(self) -> DestinationMode:
        """How hashes become destinations."""
        if self.model_key:
            return DestinationMode.MODEL
        if self.sharedPool:
            return DestinationMode.SHARED_POOL
        if self.inferencePools:
            return DestinationMode.HASH_ADDRESSED
        if self.destinationKind:
            return DestinationMode.NAMED
        return DestinationMode.STATIC


@functools.lru_cache(maxsize=2048)
def parse_config(raw: bytes) -> RouterConfig:
    """The configuration in these bytes (the controller sends the same ones every time).

    Raises ConfigError with one line per fault, each with its JSON path.
    """
    if not raw.strip():
        raise ConfigError(
            f"{PATH} is missing or empty: give at least httpRoute or inferenceModel there."
        )
    try:
        return RouterConfig.model_validate_json(raw)
    except ValidationError as error:
        faults = "; ".join(
            _fault(fault)
            for fault in error.errors(include_url=False)
            # Whatever is no rule's name is meant as a match: pydantic tells of both.
            if fault["loc"][-1:] != ("str",)
        )
        raise ConfigError(f"{faults}. Correct it in the Rollout's manifest.") from error


def _fault(fault: Any) -> str:
    path = PATH + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for part in fault["loc"]
        if MatchConfig.__name__ not in str(part)
    )
    key = fault["loc"][-1] if fault["loc"] else ""
    if key in REFUSED and fault["type"] in {"extra_forbidden", "literal_error"}:
        return f"{path}: {REFUSED[key]}"
    found = ""
    if fault["type"] not in {"missing", "value_error", "json_invalid"} and fault["loc"]:
        found = f", found {fault['input']!r}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = ", ".join(RouterConfig.model_fields)
        return f"{path}: unknown key (known ones at the top level: {known})"
    return f"{path}: {message}{found}"
