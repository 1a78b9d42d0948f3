"""The header routes and mirrors that a Rollout's steps ask for, up to the one it stands at.

The controller asks for each of them only while the Rollout stands at its step, and again at every
abort to a first step (argo-rollouts v1.10.2, rollout/trafficrouting.go). Reading the steps
instead makes them last over restarts, and over a canary that was without pods for a moment. It
is also the only way to a mirror of 0 %: on the wire from the controller that is the same as
none given, which means 100 %.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from inference_plugin.errors import ConfigError
from inference_plugin.rollouts import canary_strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_plugin.shares import Hashes

Object = dict[str, Any]
_ALL = 100


class Comparison(enum.StrEnum):
    """How a text is compared (Argo's StringMatch)."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What a text must be."""

    comparison: Comparison
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMatch:
    """A condition on a request: all that is given must hold. ``headers`` are (name, value)."""

    method: Text | None = None
    path: Text | None = None
    headers: tuple[tuple[str, Text], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedRoute:
    """One managed route: what it matches, any of ``matches``, and what becomes of it.

    ``percent`` of it is mirrored to the canary, 1 to 100; None sends all of it there instead.
    """

    name: str
    matches: tuple[RequestMatch, ...]
    percent: int | None = None


def wished_routes(rollout: Object, hashes: Hashes, available: int) -> tuple[ManagedRoute, ...]:
    """The managed routes to be had now, in the order of ``trafficRouting.managedRoutes``.

    None before the first step, without an ``available`` canary pod, once the Rollout is aborted
    or promoted, and for ``hashes`` that are no longer its own. Raises ConfigError for what no
    route can say.
    """
    canary = canary_strategy(rollout)
    names = names_of(rollout)
    status = rollout.get("status") or {}
    pair = (status.get("stableRS") or "", status.get("currentPodHash") or "")
    over = status.get("abort") or status.get("promoteFull") or not pair[0] or pair[0] == pair[1]
    if not names or over or not available:
        return ()
    if (hashes.stable, hashes.canary) != pair:
        return ()
    index = int(status.get("currentStepIndex") or 0)
    found = _after((canary.get("steps") or [])[: index + 1])
    return tuple(found[name] for name in names if name in found)


def names_of(rollout: Object) -> tuple[str, ...]:
    """``spec.strategy.canary.trafficRouting.managedRoutes``, each name once."""
    canary = canary_strategy(rollout)
    listed = (canary.get("trafficRouting") or {}).get("managedRoutes") or []
    return tuple(dict.fromkeys(str(item.get("name") or "") for item in listed))


def digest(routes: Sequence[ManagedRoute], extras: Sequence[tuple[str, int]]) -> str:
    """A short text that changes with what is wished beside the weights; empty for nothing."""
    if not routes and not extras:
        return ""
    text = json.dumps([[asdict(route) for route in routes], sorted(extras)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _after(steps: Sequence[Object]) -> dict[str, ManagedRoute]:
    """The managed routes that are left after these steps: a later one of a name replaces it."""
    found: dict[str, ManagedRoute] = {}
    for step in steps:
        for kind, read in (("setHeaderRoute", _header_route), ("setMirrorRoute", _mirror_route)):
            given = step.get(kind)
            if given is None:
                continue
            name = str(given.get("name") or "")
            route = read(name, given)
            found.pop(name, None)
            if route is not None:
                found[name] = route
    return found


def _header_route(name: str, given: Object) -> ManagedRoute | None:
    """The header route; None for one without a match, which takes it away."""
    where = f"setHeaderRoute {name!r}"
    headers = tuple(
        (str(item["headerName"]), _text(item.get("headerValue"), where, item["headerName"]))
        for item in given.get("match") or []
    )
    if not headers:
        return None
    return ManagedRoute(name=name, matches=(RequestMatch(headers=headers),))


def _mirror_route(name: str, given: Object) -> ManagedRoute | None:
    """The mirror; None for one without a match or with a share of 0, which takes it away."""
    where = f"setMirrorRoute {name!r}"
    percent = given.get("percentage")
    percent = _ALL if percent is None else int(percent)
    if not 0 <= percent <= _ALL:
        raise ConfigError(
            f"Step {where}: percentage is {percent}. Give a percentage from 0 to 100."
        )
    matches = []
    for item in given.get("match") or []:
        headers = tuple(
            (str(key), _text(value, where, key))
            for key, value in sorted((item.get("headers") or {}).items())
        )
        method, path = (
            None if item.get(field) is None else _text(item[field], where, field)
            for field in ("method", "path")
        )
        matches.append(RequestMatch(method=method, path=path, headers=headers))
    if not matches or not percent:
        return None
    return ManagedRoute(name=name, matches=tuple(matches), percent=percent)


def _text(given: Object | None, where: str, what: str) -> Text:
    values = [
        Text(comparison=kind, value=str(given[kind]))
        for kind in Comparison
        if given and given.get(kind)
    ]
    if len(values) != 1:
        raise ConfigError(
            f"Step {where}: {what} needs exactly one of exact, prefix and regex (found {given})."
        )
    return values[0]
