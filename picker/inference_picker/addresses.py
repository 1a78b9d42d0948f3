"""``HOST:PORT`` as users write it."""

from __future__ import annotations

from inference_picker.errors import ConfigError


def split_address(address: str, *, flag: str) -> tuple[str, int]:
    """Host and port of ``host:port``. Raises ConfigError that names the flag."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{flag} {address}: expected HOST:PORT, for example 10.0.0.7:9002.")
    return host.strip("[]"), int(port)


def joined(host: str, port: int) -> str:
    """``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
