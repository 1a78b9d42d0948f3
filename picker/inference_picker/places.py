"""Where a user stands: the same point in every picker, through all steps of one release."""

from __future__ import annotations

import hashlib
from typing import Final

BUCKETS: Final = 64
"""Sticky users are the unit of comparison; so many groups of them are told apart."""


def place_of(key: str, salt: str) -> tuple[int, str]:
    """A user's point in [0, 2**64) and bucket, 0 to 63.

    They come from two independent parts of one hash, so that buckets are spread evenly over any
    range of points. Another ``salt`` gives every user another place.
    """
    text = key.encode("utf-8", "surrogatepass")
    # The hash takes a key of 64 bytes at most.
    salted = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    found = hashlib.blake2b(text, digest_size=16, key=salted).digest()
    return int.from_bytes(found[:8]), str(int.from_bytes(found[8:]) % BUCKETS)
