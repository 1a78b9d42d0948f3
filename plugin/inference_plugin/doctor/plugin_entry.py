"""The plugin's entry in ``argo-rollouts-config``, as Argo Rollouts v1.10 reads it.

The controller reads it once, at its start, and ends when a plugin can't be fetched
(utils/config/config.go, utils/plugin/downloader.go).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from inference_common.names import PLUGIN_NAME
from inference_plugin.doctor.checks import Check, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]
NAME: Final = "argo-rollouts-config"
KEY: Final = "trafficRouterPlugins"
_CHECK: Final = "plugin entry"
_SHA: Final = re.compile(r"[0-9a-fA-F]{64}")
_EXAMPLE: Final = (
    f"{KEY}: |\n- name: {PLUGIN_NAME}\n  location: file:///plugins/bridge\n"
    '  args: [--server, "unix:/run/inference-rollouts/plugin.sock"]'
)


def entry_of(config_map: Object | None, where: str) -> tuple[Object | None, list[Check]]:
    """The plugin's entry, and what is to be said about it. ``where`` is NAMESPACE/NAME."""
    if config_map is None:
        return None, [
            fail(
                _CHECK,
                f"ConfigMap {where} does not exist",
                "create it with the plugin's entry (manifests/overlays), then restart the "
                "controller; --argo-namespace names another namespace",
            )
        ]
    text = (config_map.get("data") or {}).get(KEY)
    if not text:
        keys = ", ".join(sorted(config_map.get("data") or {})) or "nothing"
        return None, [
            fail(_CHECK, f"ConfigMap {where} has no {KEY} (it has {keys})", f"add {_EXAMPLE}")
        ]
    try:
        items = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return None, [
            fail(
                _CHECK,
                f"{KEY} of ConfigMap {where} is not YAML: {getattr(error, 'problem', error)}",
                "correct it: the controller ends at its start",
            )
        ]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None, [fail(_CHECK, f"{KEY} of ConfigMap {where} is no list", f"write {_EXAMPLE}")]
    found = [item for item in items if item.get("name") == PLUGIN_NAME]
    if len(found) != 1:
        names = ", ".join(str(item.get("name")) for item in items) or "none"
        return None, [
            fail(
                _CHECK,
                f"{KEY} of ConfigMap {where} names {PLUGIN_NAME} {len(found)} times "
                f"(found {names})",
                f"have one entry named {PLUGIN_NAME}: the name is the key in the Rollouts",
            )
        ]
    return found[0], list(_checks(found[0]))


def server_of(entry: Object) -> str:
    """The bridge's ``--server``; empty where the entry has none."""
    return _argument(entry, "--server")


def _argument(entry: Object, name: str) -> str:
    args = [str(item) for item in entry.get("args") or []]
    for index, item in enumerate(args):
        if item == name and index + 1 < len(args):
            return args[index + 1]
        if item.startswith(f"{name}="):
            return item.partition("=")[2]
    return ""


def _checks(entry: Object) -> Iterator[Check]:
    location, sha = str(entry.get("location") or ""), str(entry.get("sha256") or "")
    server = server_of(entry)
    remote = location.startswith(("http://", "https://"))
    faults: list[Check] = []
    if not remote and not location.startswith("file://"):
        faults.append(
            fail(
                _CHECK,
                f"location is {location!r}",
                "give file:///PATH in the controller's container, or an http(s) URL",
            )
        )
    if remote and not _SHA.fullmatch(sha):
        faults.append(
            (fail if sha else warn)(
                _CHECK,
                f"sha256 is {sha!r}" if sha else "there is no sha256 for a downloaded plugin",
                "give the 64 hexadecimal digits of `sha256sum bridge`: no other length ever "
                "matches, and without it any file of that URL runs in the controller",
            )
        )
    if not remote and sha:
        faults.append(
            warn(
                _CHECK,
                "sha256 of a file:// location is not checked by Argo Rollouts",
                "leave it out, or fetch the bridge by http(s)",
            )
        )
    if not server:
        faults.append(
            fail(
                _CHECK,
                "args have no --server",
                'add args: [--server, "unix:/run/inference-rollouts/plugin.sock"]',
            )
        )
    elif not server.startswith(("unix:", "dns:///")):
        faults.append(fail(_CHECK, f"--server is {server!r}", "give unix:PATH or dns:///HOST:PORT"))
    elif server.startswith("dns:///") and not _argument(entry, "--tls-cert"):
        loopback = server.startswith(("dns:///127.", "dns:///localhost:"))
        if not loopback:
            faults.append(
                fail(
                    _CHECK,
                    f"--server {server} has no --tls-cert, --tls-key and --tls-ca",
                    "add them (manifests/overlays/argo-deployment): the bridge refuses to send "
                    "calls over a network unencrypted",
                )
            )
    yield from faults
    if not faults:
        yield ok(_CHECK, f"{PLUGIN_NAME} at {location}, server {server}")
