"""The connection to the API server, or one clear error."""

from __future__ import annotations

from inference_analysis.errors import InputError
from inference_common.errors import KubeUnconfigured
from inference_common.kube import Kube


async def connected(kubeconfig: str) -> Kube:
    """By the kubeconfig, else as `Kube.connect` finds its way. Raises InputError without one."""
    try:
        return await Kube.connect(kubeconfig or None)
    except KubeUnconfigured as error:
        raise InputError(str(error)) from error
