"""Volumes of a pod, written into its own directory.

What a volume contains is computed first (``files_of``), then written: each file by a rename, so
that a reader never sees half of one.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from support.nodeagent.environment import ConfigError, Contents, Reference, key_of
from support.nodeagent.fields import field, resource_field

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_ACCOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the ServiceAccount admission plugin mounts its projected volume."""

_DEFAULT_TOKEN_S: Final = 3600
_SUPPORTED: Final = ("emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A bound ServiceAccount token that a volume asks for."""

    audience: str
    expiration_s: int


Tokens = dict[TokenRequest, str]


def sources_of(volume: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(type, body) of each source of a volume; a projected volume has several.

    Raises ConfigError for a type that this node does not have.
    """
    for kind in _SUPPORTED:
        if (body := volume.get(kind)) is not None:
            if kind != "projected":
                return [(kind, body)]
            return [next(iter(source.items())) for source in body.get("sources") or []]
    kinds = sorted(set(volume) - {"name"})
    raise ConfigError(
        f'volume "{volume["name"]}" is of type {", ".join(kinds)}; '
        f"this node has {', '.join(_SUPPORTED)}"
    )


def volume_references(pod: Mapping[str, Any]) -> set[Reference]:
    """The ConfigMaps and Secrets that the pod's volumes name."""
    found = set()
    for volume in pod["spec"].get("volumes") or []:
        for kind, body in sources_of(volume):
            if kind == "configMap":
                found.add(Reference("ConfigMap", body["name"]))
            elif kind == "secret":
                found.add(Reference("Secret", body.get("secretName") or body["name"]))
    return found


def token_requests(pod: Mapping[str, Any]) -> set[TokenRequest]:
    """The ServiceAccount tokens that the pod's volumes name."""
    return {
        _token(body)
        for volume in pod["spec"].get("volumes") or []
        for kind, body in sources_of(volume)
        if kind == "serviceAccountToken"
    }


def _token(body: Mapping[str, Any]) -> TokenRequest:
    seconds = int(body.get("expirationSeconds") or _DEFAULT_TOKEN_S)
    return TokenRequest(body.get("audience") or "", seconds)


def files_of(
    pod: Mapping[str, Any],
    volume: Mapping[str, Any],
    contents: Contents,
    tokens: Tokens,
    allocatable: Mapping[str, str],
) -> dict[str, bytes] | None:
    """Path and bytes of each file in a volume; None for volumes that hold no given files.

    Raises ConfigError for an object or key that is missing and not optional.
    """
    files: dict[str, bytes] = {}
    for kind, body in sources_of(volume):
        match kind:
            case "emptyDir" | "hostPath":
                return None
            case "serviceAccountToken":
                files[body["path"]] = tokens[_token(body)].encode()
            case "downwardAPI":
                files |= _downward(pod, body, allocatable)
            case "configMap":
                files |= _keys(Reference("ConfigMap", body["name"]), body, contents)
            case "secret":
                name = body.get("secretName") or body["name"]
                files |= _keys(Reference("Secret", name), body, contents)
            case _:
                raise ConfigError(
                    f'volume "{volume["name"]}" projects {kind}, which this node does not have'
                )
    return files


def _keys(reference: Reference, body: Mapping[str, Any], contents: Contents) -> dict[str, bytes]:
    optional = bool(body.get("optional"))
    held = contents.get(reference)
    if held is None and not optional:
        raise ConfigError(f'{reference.kind} "{reference.name}" not found in the pod\'s namespace')
    items = body.get("items")
    if items is None:
        return dict(held or {})
    found = {}
    for item in items:
        value = key_of(reference, item["key"], contents, optional=optional)
        if value is not None:
            found[item["path"]] = value
    return found


def _downward(
    pod: Mapping[str, Any], body: Mapping[str, Any], allocatable: Mapping[str, str]
) -> dict[str, bytes]:
    files = {}
    for item in body.get("items") or []:
        if reference := item.get("fieldRef"):
            text = field(pod, reference["fieldPath"])
        else:
            reference = item["resourceFieldRef"]
            text = resource_field(pod, {}, reference, allocatable)
        files[item["path"]] = text.encode()
    return files


def place_of(volume: Mapping[str, Any], directory: Path) -> Path:
    """Where a volume is: a host path, or a folder in the pod's directory."""
    host_path = volume.get("hostPath")
    if host_path is not None:
        return Path(host_path["path"])
    return directory / "volumes" / str(volume["name"])


def write_volume(volume: Mapping[str, Any], place: Path, files: dict[str, bytes] | None) -> None:
    """Make the volume's folder and bring its files up to date; others in it are removed.

    Raises ConfigError for a hostPath that is not what its type says.
    """
    if (host_path := volume.get("hostPath")) is not None:
        _check_host_path(place, host_path.get("type") or "")
        return
    place.mkdir(parents=True, exist_ok=True)
    if files is None:
        return
    for path, content in files.items():
        target = place / path
        if target.is_file() and target.read_bytes() == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(content)
        fresh.replace(target)
    for found in [path for path in place.rglob("*") if path.is_file()]:
        if str(found.relative_to(place)) not in files:
            found.unlink()


def _check_host_path(place: Path, kind: str) -> None:
    if kind == "DirectoryOrCreate":
        place.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        place.touch()
    elif kind in {"Directory", "File"} and not (
        place.is_dir() if kind == "Directory" else place.is_file()
    ):
        raise ConfigError(f"hostPath {place} is not a {kind.lower()} on this machine")


def remove_volumes(directory: Path) -> None:
    """Remove a pod's volumes (tokens and secrets among them); its logs stay."""
    shutil.rmtree(directory / "volumes", ignore_errors=True)
    (directory / "kubeconfig").unlink(missing_ok=True)
