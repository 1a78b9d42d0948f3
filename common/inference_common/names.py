"""Names that plugin, picker and analysis write or read on the same objects."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "inference-rollouts.io"

PLUGIN_NAME: Final = "inference-rollouts/router"
"""Key under ``spec.strategy.canary.trafficRouting.plugins`` and the plugin's name in Argo."""

FIELD_MANAGER: Final = "inference-rollouts"
"""Field manager of every write to the API server."""

COMMANDED_ANNOTATION: Final = f"{PREFIX}/commanded"
"""On managed objects: what was last commanded, written in the same patch as the weights."""

DESTINATION_ANNOTATION: Final = f"{PREFIX}/destination"
"""On a pod template: the pool, Service or LoRA adapter that this revision stands for."""

IDENTITY_ANNOTATION: Final = f"{PREFIX}/identity"
"""On a pod template: what a destination run by somebody else must contain."""

PROBE_HEADER: Final = "x-inference-rollouts-probe"
"""On requests of the analysis' own prompts, which are no part of what users meet."""

SHARES_ANNOTATION: Final = f"{PREFIX}/shares"
"""On an InferencePool: how its picker divides the requests between versions of its pods."""

VERSION_LABEL: Final = f"{PREFIX}/version"
"""On pods without a pod-template-hash: the version that series are labelled with."""

HASH_LABEL: Final = "rollouts-pod-template-hash"
"""Argo Rollouts' label on ReplicaSets and pods (argo-rollouts utils/defaults)."""

EXPERIMENT_ANNOTATION: Final = "experiment.argoproj.io/name"
"""Argo Rollouts' annotation on ReplicaSets and Services of an Experiment (experiment_types.go)."""

TEMPLATE_ANNOTATION: Final = "experiment.argoproj.io/template-name"
"""Beside it: which of the Experiment's templates they belong to."""
