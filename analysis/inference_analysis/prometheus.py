"""The edge to Prometheus: raw samples of one selector, or one clear error.

prometheus-api-client leaves out of an answer what says that it is partial, has no time limit by
default and waits for as long as a Retry-After header says; all three are set right here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Self

import requests
from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
from requests.auth import HTTPBasicAuth
from urllib3.util import Retry

from inference_analysis.errors import PrometheusError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_TEXT: Final = 300
_REMEDIES: Final = {
    400: "Check that the address is that of a Prometheus API",
    401: "Give --bearer-token-file, or --basic-user with --basic-password-file",
    403: "The credentials are not allowed to query this tenant or namespace",
    404: "Check the address: it goes up to what precedes /api/v1, e.g. /prometheus for Mimir",
    422: "Ask for fewer --minutes, or raise Prometheus' --query.max-samples",
    503: "Prometheus is starting, overloaded or out of time. Try later, or fewer --minutes",
}


class _Bearer:
    """A token that is sent with each request, and that a .netrc file cannot replace."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the server is asked."""

    url: str
    timeout_s: float = 30.0
    bearer_token: str = ""
    basic: tuple[str, str] | None = None
    ca_file: Path | None = None
    client_certificate: tuple[Path, Path] | None = None
    tenant: str = ""
    """X-Scope-OrgID of Mimir, Cortex and Loki."""
    chunk_s: float = 3600.0
    """Longest stretch that one query asks for: a server refuses more samples than it may load."""


class Prometheus:
    """One server; `with Prometheus(access) as prometheus`."""

    def __init__(self, access: Access) -> None:
        """Prepare the session; nothing is sent."""
        self._access = access
        self.notes: list[str] = []
        """What the server remarked without saying that an answer is wrong."""
        session = requests.Session()
        session.hooks["response"].append(self._examine)
        if access.ca_file is not None:
            session.verify = str(access.ca_file)
        if access.client_certificate is not None:
            certificate, key = access.client_certificate
            session.cert = (str(certificate), str(key))
        auth: Any = None
        if access.bearer_token:
            auth = _Bearer(access.bearer_token)
        elif access.basic is not None:
            auth = HTTPBasicAuth(*access.basic)
        self._client = PrometheusConnect(
            url=access.url.rstrip("/"),
            headers={"X-Scope-OrgID": access.tenant} if access.tenant else None,
            auth=auth,
            session=session,
            timeout=access.timeout_s,
            retry=Retry(
                total=2,
                backoff_factor=0.5,
                status_forcelist=(429, 502, 503, 504),
                raise_on_status=False,
                respect_retry_after_header=False,
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def samples(self, selector: str, *, since_s: float, until_s: float) -> list[dict[str, Any]]:
        """``data.result`` of all raw samples after ``since_s`` up to ``until_s``.

        One query for each ``Access.chunk_s``. A range selector in an instant query returns samples
        as scraped. A range query would return values up to five minutes old at each step and so
        hide gaps and restarts.

        Raises PrometheusError.
        """
        count = max(1, math.ceil((until_s - since_s) / self._access.chunk_s - 1e-9))
        edges = [since_s + (until_s - since_s) * i / count for i in range(count + 1)]
        parts = [self._part(selector, since_s=a, until_s=b) for a, b in pairwise(edges)]
        return parts[0] if count == 1 else _joined(parts)

    def _part(self, selector: str, *, since_s: float, until_s: float) -> list[dict[str, Any]]:
        """One query."""
        milliseconds = max(1, round((until_s - since_s) * 1000))
        url = self._access.url
        try:
            result: list[dict[str, Any]] = self._client.custom_query(
                f"{selector}[{milliseconds}ms]",
                params={
                    "time": f"{until_s:.3f}",
                    "timeout": f"{round(self._access.timeout_s * 1000)}ms",
                    # Thanos: an error rather than a part; and one copy of replicated series.
                    "partial_response": "false",
                    "dedup": "true",
                },
            )
        except PrometheusError:
            raise
        except PrometheusApiClientException as error:
            raise PrometheusError(f"{url}: {_short(error)}. {_remedy(str(error))}") from error
        except requests.JSONDecodeError as error:
            raise PrometheusError(
                f"{url}: the answer is no JSON. Check that this is Prometheus, not a login page"
            ) from error
        except requests.RequestException as error:
            # After its retries the session reports time-outs as failed connections.
            if isinstance(error, requests.Timeout) or "timed out" in str(error):
                raise PrometheusError(
                    f"{url}: no answer in {self._access.timeout_s:g} s. Ask for fewer --minutes, "
                    "or allow more by --timeout"
                ) from error
            raise PrometheusError(
                f"{url}: not reached: {_short(error)}. Check the address, the network and the "
                "certificates"
            ) from error
        except (KeyError, TypeError) as error:
            raise PrometheusError(
                f"{url}: the answer has no data.result. Check that this is a Prometheus API"
            ) from error
        return result

    def _examine(self, response: requests.Response, *_: object, **__: object) -> None:
        """Raise PrometheusError for an answer with warnings: those are partial."""
        if response.status_code != requests.codes.ok:
            return
        # Inside of strings quotes are escaped, so most answers need no second parse.
        if not any(key in response.content for key in (b'"warnings"', b'"infos"')):
            return
        body = response.json()
        if not isinstance(body, dict):
            return
        self.notes += [f"Prometheus: {text}" for text in body.get("infos") or ()]
        if body.get("warnings"):
            raise PrometheusError(
                f"{self._access.url}: the answer may be partial: "
                f"{_short('; '.join(map(str, body['warnings'])))}. Nothing is judged on a part; "
                "see to the stores behind it and try again"
            )


def _joined(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The same series of consecutive parts as one; a sample at their common edge counts once."""
    found: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for entry in (entry for part in parts for entry in part):
        key = tuple(sorted(entry["metric"].items()))
        if key not in found:
            found[key] = {"metric": entry["metric"]}
        for kind in ("values", "histograms"):
            if kind in entry:
                before = found[key].setdefault(kind, [])
                last = before[-1][0] if before else -math.inf
                before += [sample for sample in entry[kind] if sample[0] > last]
    return list(found.values())


def _remedy(text: str) -> str:
    for code, remedy in _REMEDIES.items():
        if f"HTTP Status Code {code} " in text:
            return remedy
    return "See Prometheus' own log"


def _short(problem: object) -> str:
    text = " ".join(str(problem).split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
