"""Configuration keys of the gatewayAPI plugin that this plugin does not take, and why not.

Its other keys (httpRoute, httpRoutes[].name, grpcRoute, grpcRoutes[].name, namespace) mean the same
here. The keys are those of rollouts-plugin-trafficrouter-gatewayapi v0.15.0, pkg/plugin/types.go;
docs/plugin.md has the table for who comes from there.
"""

from __future__ import annotations

from typing import Final

_STREAMS: Final = (
    "weights are set per request, on HTTPRoutes and GRPCRoutes: a TCP or TLS connection to a model "
    "server carries many requests. Put an HTTPRoute before the model"
)
_SELECTED: Final = (
    "routes are named, so that a label on somebody else's route does not hand it over. List them "
    "under {} as {{name: …}}"
)
_LABEL: Final = (
    "no label is put on routes. Have Argo CD ignore the weights by managedFieldsManagers: "
    "[inference-rollouts] instead"
)

REFUSED: Final[dict[str, str]] = {
    "tcpRoute": _STREAMS,
    "tcpRoutes": _STREAMS,
    "tcpRouteSelector": _STREAMS,
    "tlsRoute": _STREAMS,
    "tlsRoutes": _STREAMS,
    "tlsRouteSelector": _STREAMS,
    "httpRouteSelector": _SELECTED.format("httpRoutes"),
    "grpcRouteSelector": _SELECTED.format("grpcRoutes"),
    "inProgressLabelKey": _LABEL,
    "inProgressLabelValue": _LABEL,
    "disableInProgressLabel": f"{_LABEL}, and leave this key out, or true",
    "useHeaderRoutes": "header routes are made on every route that is named: leave this key out, "
    "or true, or take the setHeaderRoute steps out",
    "configMap": "nothing is kept in a ConfigMap: what was commanded stands on the routes. Leave "
    "this key out",
}
"""By key, as the second half of a sentence. Some are refused only with a certain value."""
