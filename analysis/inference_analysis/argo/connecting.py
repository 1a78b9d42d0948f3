"""The connection to the API server, or one clear error."""

from __future__ import annotations

from inference_analysis.errors import InputError
from inference_common.kube import Kube


async def connected(kubeconfig: str) -> Kube:
    """By the kubeconfig, else as `Kube.connect` finds its way. Raises InputError without one."""
    from kubernetes.aio.config.config_exception import ConfigException  # noqa: PLC0415 - as Kube

    try:
        return await Kube.connect(kubeconfig or None)
    except ConfigException as error:
        raise InputError(
            f"the cluster cannot be reached: {error}. Give --kubeconfig or $KUBECONFIG; in a pod "
            "see to its ServiceAccount"
        ) from error
