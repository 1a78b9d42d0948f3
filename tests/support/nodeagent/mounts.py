"""Mount paths on a machine where all pods share one file system.

A volume lives in the pod's own directory. What a container would see at its mount path is given
to it twice: each occurrence of the mount path in command, args and env values is replaced by the
real path, and ``LOCAL_MOUNT_<VOLUME>`` holds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.nodeagent.expansion import expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A volume of the pod as a container sees it: mount path and the real place."""

    volume: str
    path: str
    source: Path


def mounts_of(
    container: Mapping[str, Any], volumes: Mapping[str, Path], variables: Mapping[str, str]
) -> tuple[Mount, ...]:
    """The container's mounts, from where each volume of the pod really is.

    Raises KeyError for a volume that is not there; the API server refuses such pods.
    """
    found = []
    for entry in container.get("volumeMounts") or []:
        source = volumes[entry["name"]]
        below = entry.get("subPath") or expand(entry.get("subPathExpr") or "", variables)
        path = entry["mountPath"].rstrip("/") or "/"
        found.append(Mount(volume=entry["name"], path=path, source=source / below))
    return tuple(found)


def mount_variables(mounts: Iterable[Mount]) -> dict[str, str]:
    """``LOCAL_MOUNT_<VOLUME>`` for each mount; dashes and dots become underscores."""
    return {
        "LOCAL_MOUNT_" + re.sub(r"[^A-Z0-9]", "_", mount.volume.upper()): str(mount.source)
        for mount in mounts
    }


def localise(text: str, mounts: Iterable[Mount]) -> str:
    """Replace mount paths in a text by the real places, the longest path first.

    A mount path counts where it begins a path (no path character stands before it) and ends at a
    component's end, so that ``/etc/app`` is found in ``--config=/etc/app/x`` and ``/etc/app,``
    but neither in ``/etc/application`` nor in ``/srv/etc/app``.
    """
    ordered = sorted(mounts, key=lambda mount: -len(mount.path))
    if not ordered:
        return text
    places = {mount.path: str(mount.source) for mount in ordered}
    options = "|".join(re.escape(mount.path) for mount in ordered)
    return re.sub(rf"(?<![\w./-])({options})(?![\w.-])", lambda match: places[match.group(1)], text)
