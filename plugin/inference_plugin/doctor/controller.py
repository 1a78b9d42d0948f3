"""The controller's Deployment, and the plugin servers: versions, mounts, how many there are."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_plugin.doctor.checks import Check, fail, ok, skipped, warn
from inference_plugin.doctor.plugin_entry import server_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Object = dict[str, Any]
OLDEST: Final = (1, 10)
"""Argo Rollouts before it decides runs of short analyses differently, and reports no weights of
ping-pong Services."""

_CONTROLLER: Final = "argo-rollouts"
_VERSION: Final = re.compile(r"^v?(\d+)\.(\d+)(?:\.|$|-|\+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A Deployment's container that runs the plugin server."""

    deployment: Object
    container: Object

    @property
    def replicas(self) -> int:
        """How many of it are wanted."""
        return int(self.deployment["spec"].get("replicas", 1))

    @property
    def account(self) -> str:
        """Its ServiceAccount, ``namespace/name``."""
        pod = self.deployment["spec"]["template"]["spec"]
        namespace = self.deployment["metadata"]["namespace"]
        return f"{namespace}/{pod.get('serviceAccountName') or 'default'}"

    @property
    def arguments(self) -> list[str]:
        """Command and arguments."""
        return [*(self.container.get("command") or []), *(self.container.get("args") or [])]

    def argument(self, name: str) -> str:
        """The value of an option, empty where it is not given."""
        for index, item in enumerate(self.arguments):
            if item.startswith(f"{name}="):
                return str(item).partition("=")[2]
            if item == name and index + 1 < len(self.arguments):
                return str(self.arguments[index + 1])
        return ""


def servers_of(deployments: Sequence[Object]) -> list[Server]:
    """Every container that runs ``plugin serve``."""
    return [
        Server(deployment=deployment, container=container)
        for deployment in deployments
        for container in _containers(deployment)
        if _serves(container)
    ]


def controller_of(deployments: Sequence[Object]) -> tuple[Object, Object] | None:
    """The controller's Deployment and its container, by name or by image."""
    for deployment in deployments:
        for container in _containers(deployment):
            image = str(container.get("image", "")).partition("@")[0].rpartition("/")[2]
            if image.partition(":")[0] == _CONTROLLER:
                return deployment, container
    return None


def check_controller(found: tuple[Object, Object] | None, namespace: str) -> Iterator[Check]:
    """Whether the controller is there, and new enough."""
    name = "controller"
    if found is None:
        yield warn(
            name,
            f"no Deployment in {namespace} runs the image argo-rollouts",
            "name its namespace by --argo-namespace; without it version, mounts and restarts are "
            "not looked at",
        )
        return
    image = str(found[1].get("image", ""))
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    version = _VERSION.match(tag)
    least = ".".join(map(str, OLDEST))
    if version is None:
        yield warn(
            name,
            f"the version of image {image} can't be told from its tag",
            f"make sure that it is {least} or later",
        )
    elif (int(version[1]), int(version[2])) < OLDEST:
        yield fail(
            name,
            f"Argo Rollouts is {tag}",
            f"install {least} or later: this plugin is made for its calls",
        )
    else:
        yield ok(name, f"Argo Rollouts {tag}, Deployment {namespace}/{_name(found[0])}")


def check_mounts(
    entry: Object | None, found: tuple[Object, Object] | None, servers: Sequence[Server]
) -> Iterator[Check]:
    """Whether bridge and socket are where the entry says, in the controller's container."""
    if entry is None or found is None:
        return
    name, (deployment, container) = "mounts", found
    location = str(entry.get("location") or "")
    faults = []
    if location.startswith("file://"):
        path = location.removeprefix("file://")
        if _mount(container, path) is None:
            faults.append(
                fail(
                    name,
                    f"no volume of container {container['name']} covers {path}",
                    "mount the volume with the bridge there (manifests/overlays/argo-sidecar/"
                    "sidecar.yaml): the controller ends at its start without it",
                )
            )
    server = server_of(entry)
    if server.startswith("unix:"):
        path = server.removeprefix("unix:")
        mine = _mount(container, path)
        beside = [each for each in servers if each.deployment is deployment]
        theirs = {_mount(each.container, each.argument("--socket") or path) for each in beside}
        if mine is None:
            faults.append(
                fail(
                    name,
                    f"no volume of container {container['name']} covers {path}",
                    "mount the volume that it shares with the plugin server there",
                )
            )
        elif not beside:
            faults.append(
                fail(
                    name,
                    f"Deployment {_name(deployment)} has no container that runs the plugin server",
                    "add the sidecar (manifests/overlays/argo-sidecar)",
                )
            )
        elif mine not in theirs:
            faults.append(
                fail(
                    name,
                    f"the bridge looks for {path}, the server's socket is in another volume",
                    "give both containers the same volume, and --socket and --server one path",
                )
            )
    yield from faults
    if not faults:
        yield ok(name, "bridge and socket are where the entry says")


def check_restart(
    config_map: Object | None, pods: Sequence[Object], found: tuple[Object, Object] | None
) -> Iterator[Check]:
    """Whether the controller has read the ConfigMap as it is: it does so only at its start."""
    if config_map is None or found is None:
        return
    name = "restart"
    changes = [
        str(field["time"])
        for field in config_map["metadata"].get("managedFields") or []
        if "time" in field
    ]
    starts = [
        str((pod.get("status") or {}).get("startTime"))
        for pod in pods
        if (pod.get("status") or {}).get("startTime") and _is_of(pod, found[0])
    ]
    # RFC 3339 in UTC: the order of the texts is that of the times.
    if changes and starts and max(changes) > min(starts):
        yield warn(
            name,
            f"ConfigMap {config_map['metadata']['name']} was changed at {max(changes)}, the "
            f"controller runs since {min(starts)}",
            f"kubectl rollout restart deployment {_name(found[0])}: it is read at the start only",
        )
    elif starts:
        yield ok(name, "the controller has started after the last change of its ConfigMap")


def check_servers(
    servers: Sequence[Server], lease: Object | None, age_s: float | None
) -> Iterator[Check]:
    """Whether several servers have a Lease, and whether somebody holds it.

    ``lease`` is the Lease that the servers name, ``age_s`` the time since it was renewed.
    """
    name = "several servers"
    wanted = sum(each.replicas for each in servers)
    named = {each.argument("--lease") for each in servers}
    if not servers:
        yield skipped(
            name,
            "no Deployment of this namespace runs `plugin serve`",
            "nothing, if the server runs elsewhere",
        )
    elif wanted > 1 and (len(named) > 1 or "" in named):
        yield warn(
            name,
            f"{wanted} servers run and not all of them compete for one Lease",
            "start each with --lease NAMESPACE/NAME, the same for all: else all of them repair "
            "drift at once",
        )
    elif wanted <= 1 and "" in named:
        yield ok(name, f"{wanted} server, without a Lease")
    elif lease is None:
        yield fail(
            name,
            f"Lease {max(named)} does not exist, so that no server looks after drift",
            "see the servers' logs; they need get, create and update on leases there",
        )
    else:
        spec = lease.get("spec") or {}
        limit_s = float(spec.get("leaseDurationSeconds") or 0)
        holder = spec.get("holderIdentity") or ""
        if not holder or age_s is None or age_s > 2 * limit_s:
            yield fail(
                name,
                f"Lease {max(named)} is held by {holder or 'nobody'}"
                + (f", renewed {age_s:.0f} s ago" if age_s is not None else ""),
                "see the servers' logs: nobody looks after drift and aborts",
            )
        else:
            yield ok(name, f"{wanted} servers, {holder} leads")


def _containers(deployment: Object) -> list[Object]:
    spec = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    found: list[Object] = spec.get("containers") or []
    return found


def _serves(container: Object) -> bool:
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    return any(pair == ("plugin", "serve") for pair in itertools.pairwise(words))


def _mount(container: Object, path: str) -> str | None:
    """Name of the volume that the path is in, None for the container's own file system."""
    found = [
        mount
        for mount in container.get("volumeMounts") or []
        if path.startswith(str(mount.get("mountPath", "")).rstrip("/") + "/")
    ]
    best = max(found, key=lambda mount: len(mount["mountPath"]), default=None)
    return None if best is None else str(best["name"])


def _is_of(pod: Object, deployment: Object) -> bool:
    wanted = (deployment["spec"].get("selector") or {}).get("matchLabels") or {}
    labels = pod["metadata"].get("labels") or {}
    return bool(wanted) and wanted.items() <= labels.items()


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
