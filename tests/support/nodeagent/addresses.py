"""Loopback addresses of the node and its pods."""

from __future__ import annotations

import ipaddress
from typing import Final

_PREFIX_LENGTH: Final = 16
_NODES: Final = 0
"""Third octet of the nodes' own addresses."""
_GATEWAYS: Final = 255
"""Third octet kept free for gateways."""
_PER_OCTET: Final = 254


class AddressesExhaustedError(Exception):
    """Every address of the network belongs to a pod."""


class Addresses:
    """Hands out 127.A.1.1 to 127.A.254.254, in turn, so that an address is reused late.

    A late reuse matters: a client that still holds a dead pod's address must fail to connect
    instead of reaching another pod.
    """

    def __init__(self, network: str) -> None:
        """Take a /16 network inside 127.0.0.0/8; raises ValueError for anything else."""
        parsed = ipaddress.IPv4Network(network)
        if parsed.prefixlen != _PREFIX_LENGTH or not parsed.is_loopback:
            raise ValueError(f"network {network}: a /16 inside 127.0.0.0/8 is needed")
        self._base = int(parsed.network_address)
        self._used: set[str] = set()
        self._next = 0
        self._size = (_GATEWAYS - _NODES - 1) * _PER_OCTET

    def node(self, index: int) -> str:
        """Address of the node with that index, counted from zero."""
        return str(ipaddress.IPv4Address(self._base + (_NODES << 8) + index + 1))

    def allocate(self) -> str:
        """A free address. Raises AddressesExhaustedError when there is none."""
        for _ in range(self._size):
            octet, last = divmod(self._next, _PER_OCTET)
            self._next = (self._next + 1) % self._size
            address = str(ipaddress.IPv4Address(self._base + ((octet + 1) << 8) + last + 1))
            if address not in self._used:
                self._used.add(address)
                return address
        raise AddressesExhaustedError(f"all {self._size} pod addresses are in use")

    def reserve(self, address: str) -> None:
        """Mark an address that a pod already has; the next new ones come after it."""
        self._used.add(address)
        offset = int(ipaddress.IPv4Address(address)) - self._base
        octet, last = divmod(offset, 1 << 8)
        index = (octet - 1) * _PER_OCTET + last
        if 0 <= index < self._size:
            self._next = max(self._next, index)

    def release(self, address: str) -> None:
        """Give an address back."""
        self._used.discard(address)
