"""Where an object keeps the weighted list that divides the requests for one model name.

InferenceModel, InferenceModelRewrite and lists at a configured path differ in where the list is
and in what its keys are called. A ModelSplit hides that; what is planned on it, they share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
)
from inference_plugin.errors import ConfigError
from inference_plugin.patches import pointer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_common.kube import Resource
    from inference_plugin.config import ModelRewriteConfig, RouterConfig

Object = dict[str, Any]
_MODEL_TARGETS: Final = 10
"""Most targetModels (gateway-api-inference-extension v0.5.1, inferencemodels)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSplit:
    """One weighted list of one object.

    ``path`` leads to it from the object's root. ``place`` tells it from other lists of the same
    object, as the commanded annotation writes it. ``most`` is the most entries it may have, None
    for no limit; ``pool_group`` the API group of a poolRef that names none.
    """

    obj: Object
    resource: Resource
    path: tuple[str | int, ...]
    name_key: str
    weight_key: str
    place: str = ""
    most: int | None = None
    pool_group: str = INFERENCEPOOL.group

    @property
    def entries(self) -> Sequence[Object]:
        """The list; empty where there is none."""
        found: Any = self.obj
        for part in self.path:
            if isinstance(part, int):
                found = found[part] if part < len(found) else {}
            else:
                found = found.get(part) or {}
        return found or []

    @property
    def names(self) -> list[str]:
        """What each entry sends requests to."""
        return [str(entry.get(self.name_key, "")) for entry in self.entries]

    @property
    def weights(self) -> list[int]:
        """The weight that each entry has in effect.

        Without any weight the shares are equal; beside weighted entries one without is never
        drawn (llm-d-router pkg/epp/requestcontrol/director.go, selectWeightedModel).
        """
        entries = self.entries
        absent = 0 if any(self.weight_key in entry for entry in entries) else 1
        return [int(entry.get(self.weight_key, absent)) for entry in entries]

    @property
    def title(self) -> str:
        """The object for a message."""
        metadata = self.obj["metadata"]
        return f"{self.resource.kind} {metadata['namespace']}/{metadata['name']}"

    @property
    def field(self) -> str:
        """The list for a message, as ``spec.rules[0].targets``."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return "".join(parts).removeprefix(".")

    @property
    def pointer(self) -> str:
        """The list's JSON Pointer."""
        return pointer(*self.path)

    @property
    def pool_resource(self) -> Resource | None:
        """The type of the pool that the object refers to; None where it refers to none."""
        ref = (self.obj.get("spec") or {}).get("poolRef")
        if not ref:
            return None
        group = ref.get("group") or self.pool_group
        return INFERENCEPOOL if group == INFERENCEPOOL.group else INFERENCEPOOL_X

    def entry(self, name: str, weight: int) -> Object:
        """A new entry."""
        return {self.name_key: name, self.weight_key: weight}


def split_of(obj: Object, resource: Resource, config: RouterConfig) -> ModelSplit:
    """The list of the object that the configuration means.

    Raises ConfigError where the object has no such list.
    """
    if config.modelList is not None:
        return ModelSplit(
            obj=obj,
            resource=resource,
            path=tuple(config.modelList.listPath.split(".")),
            name_key=config.modelList.nameKey,
            weight_key=config.modelList.weightKey,
        )
    if config.inferenceModelRewrite is not None:
        return _rewrite(obj, resource, config.inferenceModelRewrite)
    if resource == INFERENCEMODEL:
        return ModelSplit(
            obj=obj,
            resource=resource,
            path=("spec", "targetModels"),
            name_key="name",
            weight_key="weight",
            most=_MODEL_TARGETS,
            pool_group=INFERENCEPOOL_X.group,
        )
    raise ValueError(f"{resource.kind} of {resource.group} holds no model split")


def _rewrite(obj: Object, resource: Resource, wanted: ModelRewriteConfig) -> ModelSplit:
    rules: Sequence[Object] = (obj.get("spec") or {}).get("rules") or []
    split = ModelSplit(
        obj=obj, resource=resource, path=(), name_key="modelRewrite", weight_key="weight"
    )
    found = ", ".join(f"{at}: {_matched_text(rule)}" for at, rule in enumerate(rules)) or "none"
    if wanted.rule is not None:
        if wanted.rule >= len(rules):
            raise ConfigError(
                f"{split.title} has no rule {wanted.rule} (found {found}). Correct "
                "inferenceModelRewrite.rule, which counts from 0."
            )
        index = wanted.rule
    elif wanted.model is not None:
        matching = [at for at, rule in enumerate(rules) if wanted.model in _matched(rule)]
        if not matching:
            raise ConfigError(
                f"{split.title} has no rule that matches the model {wanted.model!r} (found "
                f"{found}). Correct inferenceModelRewrite.model, or choose by "
                "inferenceModelRewrite.rule."
            )
        # Of several rules for one name the first decides (InferenceModelRewrite, precedence).
        index = matching[0]
    elif len(rules) == 1:
        index = 0
    else:
        raise ConfigError(
            f"{split.title} has {len(rules)} rules (found {found}); which one is meant? Say it by "
            "inferenceModelRewrite.model or inferenceModelRewrite.rule."
        )
    names = _matched(rules[index])
    return ModelSplit(
        obj=obj,
        resource=resource,
        path=("spec", "rules", index, "targets"),
        name_key="modelRewrite",
        weight_key="weight",
        # By what it matches, so that a rule put in front of it does not take its place.
        place=f"model={','.join(sorted(names))}" if names else f"#{index}",
    )


def _matched(rule: Object) -> list[str]:
    """The model names that a rule matches; none for one that matches all."""
    return [str(match["model"]["value"]) for match in rule.get("matches") or []]


def _matched_text(rule: Object) -> str:
    return " and ".join(map(repr, _matched(rule))) or "every model"
