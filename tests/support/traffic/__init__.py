"""Streaming chat requests through a gateway, and who answered them.

::

    async with Traffic("http://127.20.255.1:8080", model="mymodel", rate=20) as traffic:
        window = await traffic.until_answers(200)
        low, high = window.interval("v2")
    assert traffic.failures == []
"""

from __future__ import annotations

from support.traffic.generator import Traffic
from support.traffic.records import Request
from support.traffic.window import Window

__all__ = ["Request", "Traffic", "Window"]
