"""The gateway's subset hint: the only endpoints that a request may go to."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def split_hint(hint: str | Iterable[str]) -> tuple[str, ...]:
    """The entries of a hint given as a list or as one string with commas.

    Endpoint picker protocol, "subset": an empty result allows no endpoint at all.
    """
    parts = hint.split(",") if isinstance(hint, str) else hint
    return tuple(part.strip() for part in parts if part.strip())


def allows(subset: Iterable[str], address: str) -> bool:
    """Whether an entry names this ``ip:port``; an entry without port allows every port."""
    return Subset(subset).allows(address)


class Subset:
    """A hint that many addresses are compared with."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Take the entries of `split_hint`."""
        self._entries = frozenset(map(_parts, entries))

    def allows(self, address: str) -> bool:
        """Whether an entry names this ``ip:port``; an entry without port allows every port."""
        host, port = _parts(address)
        return (host, port) in self._entries or (host, "") in self._entries


@lru_cache(maxsize=4096)
def _parts(address: str) -> tuple[str, str]:
    """Host and port; IPv6 with or without brackets, in its shortest spelling."""
    text = address.strip()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    try:
        return str(ip_address(host)), port
    except ValueError:
        return host, port
