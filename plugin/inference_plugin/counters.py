"""The data plane's own counters, asked of Prometheus."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_LIMIT_S: Final = 2.0
"""Inside a call of the controller, which has eight seconds for everything."""


class CountersError(Exception):
    """Prometheus could not be asked, or its answer is none that was asked for."""


class _Sample(BaseModel):
    model_config = ConfigDict(extra="ignore")
    metric: dict[str, str]
    value: tuple[float, str]


class _Vector(BaseModel):
    model_config = ConfigDict(extra="ignore")
    resultType: str = Field(pattern="^vector$")  # noqa: N815 - Prometheus' name
    result: list[_Sample]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    status: str = Field(pattern="^success$")
    data: _Vector


class Counters:
    """One Prometheus. ``url`` is where its API is, as http://prometheus:9090."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet. Raises ValueError for what is no http(s) URL."""
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
            raise ValueError(f"{url!r} is no http(s) URL, for example http://prometheus:9090")
        self.url = url.rstrip("/")

    async def values(self, query: str, label: str) -> dict[str, float]:
        """The query's samples now, by the value of one label. Raises CountersError."""
        limit = aiohttp.ClientTimeout(total=_LIMIT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.post(f"{self.url}/api/v1/query", data={"query": query}) as response,
            ):
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            words = str(error) or type(error).__name__
            raise CountersError(f"Prometheus at {self.url} was not reached: {words}") from error
        try:
            answer = _Answer.model_validate_json(text)
        except ValidationError as error:
            raise CountersError(
                f"Prometheus at {self.url} answers the query with {text[:200]!r}, which is no "
                "vector; correct dataPlaneProof.query"
            ) from error
        return _by_label(answer.data.result, label)


def _by_label(samples: list[_Sample], label: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in samples:
        name: Any = sample.metric.get(label)
        if name is None:
            raise CountersError(
                f"the query's samples have no label {label!r} (they have "
                f"{', '.join(sorted(sample.metric)) or 'none'}); correct dataPlaneProof.label or "
                "the query's `by`"
            )
        value = float(sample.value[1])
        # A rate over nothing is NaN: nothing was counted.
        found[name] = found.get(name, 0.0) + (value if value == value else 0.0)  # noqa: PLR0124
    return found
