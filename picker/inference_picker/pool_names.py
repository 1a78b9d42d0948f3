"""Which pools to serve and on which ports, as ``--pool`` says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inference_picker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORM: Final = "expected NAME or NAMESPACE/NAME, with =PORT where several pools are served"
_LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolName:
    """A pool and the port of its ext_proc."""

    namespace: str
    name: str
    port: int


def read_pools(texts: Sequence[str], *, namespace: str, port: int) -> tuple[PoolName, ...]:
    """The pools of ``[NAMESPACE/]NAME[=PORT]``; ``namespace`` and ``port`` where one is left out.

    Raises ConfigError that names the pool.
    """
    pools = tuple(_read(text, namespace, port) for text in texts)
    seen: dict[tuple[str, str], PoolName] = {}
    ports: dict[int, PoolName] = {}
    for text, each in zip(texts, pools, strict=True):
        if (each.namespace, each.name) in seen:
            raise ConfigError(f"--pool {text}: {each.namespace}/{each.name} is named twice.")
        other = ports.get(each.port)
        # Port 0 lets the system choose.
        if other is not None and each.port:
            raise ConfigError(
                f"--pool {text}: port {each.port} is that of {other.namespace}/{other.name}. "
                "A gateway tells pools apart by the port alone: give each one of its own, as "
                f"{each.namespace}/{each.name}={each.port + 10}."
            )
        seen[each.namespace, each.name] = ports[each.port] = each
    return pools


def _read(text: str, namespace: str, port: int) -> PoolName:
    place, _, wanted = text.partition("=")
    inner, slash, name = place.rpartition("/")
    if not name or "/" in inner or (slash and not inner):
        raise ConfigError(f"--pool {text}: {_FORM}.")
    if wanted and not (wanted.isdigit() and int(wanted) <= _LAST_PORT):
        raise ConfigError(f"--pool {text}: {wanted!r} is no port; {_FORM}.")
    if not wanted and "=" in text:
        raise ConfigError(f"--pool {text}: the port is missing; {_FORM}.")
    if not (inner or namespace):
        raise ConfigError(f"--pool {text}: name its namespace by --namespace, or as NS/{name}.")
    return PoolName(namespace=inner or namespace, name=name, port=int(wanted) if wanted else port)
