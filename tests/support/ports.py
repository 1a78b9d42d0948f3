"""Ports that stay free until their owner listens.

A port that the kernel picks may be taken again at once, by another test or as the near end of any
connection. These lie below the ones that it picks from, and no two processes get the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from io import TextIOWrapper

# 20,000 to 20,500 are the clusters' own (cluster.network); Linux picks from 32,768 on.
_CANDIDATES: Final = range(21_000, 31_000)
_held: Final[list[TextIOWrapper]] = []
"""Locks, which end with this process."""


def reserved_port(host: str = "127.0.0.1") -> int:
    """A port of the address that nobody else gets while this process lives."""
    folder = Path(tempfile.gettempdir()) / f"inference-rollouts-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Anywhere: one that was just in use may still have connections that linger.
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        lock = (folder / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind((host, port))
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return port
    raise OSError(errno.EADDRINUSE, f"all of {_CANDIDATES} are in use on {host}")
