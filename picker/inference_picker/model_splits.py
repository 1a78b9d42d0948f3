"""Model splits as the cluster's objects say them: InferenceModel and InferenceModelRewrite.

Where both API groups of InferenceModelRewrite are installed the older one is ignored, as by
upstream's picker (llm-d-router pkg/epp/server/controller_config.go).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
)
from inference_common.names import COMMANDED_ANNOTATION
from inference_common.shares import commanded_homes
from inference_picker.optional_watch import OptionalWatch
from inference_picker.splits import ModelSplit, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from inference_common.kube import Kube

KINDS: Final = (INFERENCEMODEL, INFERENCEMODELREWRITE, INFERENCEMODELREWRITE_X)


def inference_models(
    pool_name: str, pool_group: str, objects: Iterable[Mapping[str, Any]]
) -> Iterator[ModelSplit]:
    """The splits of the InferenceModels that refer to the pool, the oldest first.

    The oldest of several for one model name is the valid one (InferenceModel v1alpha2,
    ``modelName``).
    """
    for model in _of_pool(pool_name, pool_group, objects, INFERENCEPOOL_X.group):
        spec = model["spec"]
        targets = _targets(spec.get("targetModels") or [], "name")
        yield ModelSplit(model=spec["modelName"], targets=targets, stable=_stable(model, targets))


def model_rewrites(
    pool_name: str, pool_group: str, objects: Iterable[Mapping[str, Any]]
) -> Iterator[ModelSplit]:
    """The splits of the InferenceModelRewrites that refer to the pool, the first to count first.

    A rule without matches is for every model that no other one is for; then the oldest object
    counts, then the first rule in it (llm-d-router apix/v1alpha2, InferenceModelRewriteSpec).
    """
    generic: list[ModelSplit] = []
    for rewrite in _of_pool(pool_name, pool_group, objects, INFERENCEPOOL.group):
        for rule in rewrite["spec"].get("rules") or []:
            targets = _targets(rule.get("targets") or [], "modelRewrite")
            stable = _stable(rewrite, targets)
            if not rule.get("matches"):
                generic.append(ModelSplit(model=None, targets=targets, stable=stable))
            for match in rule.get("matches") or []:
                model = match["model"]["value"]
                yield ModelSplit(model=model, targets=targets, stable=stable)
    yield from generic


def _of_pool(
    pool_name: str, pool_group: str, objects: Iterable[Mapping[str, Any]], default_group: str
) -> list[Mapping[str, Any]]:
    """The objects that refer to the pool, the oldest first."""

    def age(obj: Mapping[str, Any]) -> tuple[str, str]:
        metadata = obj["metadata"]
        return str(metadata.get("creationTimestamp", "")), str(metadata["name"])

    found = []
    for obj in sorted(objects, key=age):
        ref = obj.get("spec", {}).get("poolRef", {})
        group = ref.get("group", default_group)
        if ref.get("name") == pool_name and group == pool_group:
            found.append(obj)
    return found


def _targets(entries: Iterable[Mapping[str, Any]], key: str) -> tuple[Target, ...]:
    """Without any weight the shares are equal; beside weighted entries one without gets none.

    The same as upstream's draw (llm-d-router pkg/epp/requestcontrol/director.go,
    selectWeightedModel).
    """
    listed = list(entries)
    absent = 0 if any("weight" in each for each in listed) else 1
    return tuple(Target(name=each[key], weight=int(each.get("weight", absent))) for each in listed)


def _stable(obj: Mapping[str, Any], targets: Iterable[Target]) -> str:
    """The target that the plugin's mark on the object names as stable's; empty where none does."""
    names = {target.name for target in targets}
    mark = (obj["metadata"].get("annotations") or {}).get(COMMANDED_ANNOTATION, "")
    return next((home for home in commanded_homes(mark) if home in names), "")


class SplitWatch:
    """The splits of one namespace, from the kinds that the cluster serves."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        """Nothing runs before the watches are started."""
        self.watches = {kind: OptionalWatch(kube, kind, namespace) for kind in KINDS}

    def splits(self, pool_name: str, pool_group: str) -> Iterator[ModelSplit]:
        """The splits of a pool, the first to count for a model name first."""
        rewrites = self.watches[INFERENCEMODELREWRITE]
        if not rewrites.is_served:
            rewrites = self.watches[INFERENCEMODELREWRITE_X]
        yield from model_rewrites(pool_name, pool_group, rewrites.items())
        models = self.watches[INFERENCEMODEL]
        yield from inference_models(pool_name, pool_group, models.items())
