"""Errors of the API server's edge.

::

    KubeError                 the API server answered no
    ├── KubeUnreachable       it did not answer, or the connection broke
    └── KubeUnconfigured      nothing says where it is, or what says so can't be read
"""

from __future__ import annotations

_CONFLICT = 409
_NOT_FOUND = 404
_GONE = 410
_INVALID = 422
_TOO_MANY = 429
_SERVER = 500
# Long bodies (HTML of a proxy, dumps of an object) drown the sentence that matters.
_MESSAGE_LIMIT = 500


class KubeError(Exception):
    """The API server refused a request.

    ``status`` is the HTTP status (0 when there was no answer), ``reason`` the Status object's
    machine-readable word, ``message`` its sentence.
    """

    def __init__(self, status: int, reason: str, message: str, request: str = "") -> None:
        """Keep the parts; the text names the request, so that a log line stands alone."""
        self.status = status
        self.reason = reason
        self.message = message[:_MESSAGE_LIMIT]
        self.request = request
        where = f"{request}: " if request else ""
        super().__init__(f"{where}{status} {reason}: {self.message}")

    @property
    def not_found(self) -> bool:
        """Whether the object or the resource type does not exist."""
        return self.status == _NOT_FOUND

    @property
    def conflict(self) -> bool:
        """Whether the object changed since it was read, or exists already."""
        return self.status == _CONFLICT

    @property
    def invalid(self) -> bool:
        """Whether the object was refused: validation, or a failed JSON Patch ``test`` (422)."""
        return self.status == _INVALID

    @property
    def expired(self) -> bool:
        """Whether a watch asked for a version that is no longer kept."""
        return self.status == _GONE or self.reason == "Expired"

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without any change."""
        return self.status in {0, _TOO_MANY} or self.status >= _SERVER


class KubeUnreachable(KubeError):  # noqa: N818 - it names a state of the API server
    """No answer from the API server within the time limit."""

    def __init__(self, message: str, request: str = "") -> None:
        """An error with status 0."""
        super().__init__(0, "Unreachable", message, request)


class KubeUnconfigured(KubeError):  # noqa: N818 - it names a state of the caller
    """Neither a kubeconfig nor a pod's service account leads to an API server."""

    def __init__(self, found: object, kubeconfig: str | None) -> None:
        """Name what was tried, what was found there, and the remedy."""
        tried = kubeconfig or "$KUBECONFIG, ~/.kube/config and the pod's service account"
        sentence = str(found).strip().rstrip(".")
        super().__init__(
            0,
            "Unconfigured",
            f"no way to the API server by {tried}: {sentence}. Name a file by --kubeconfig; in a "
            "pod, see to its service account.",
        )
        # A status that no server gave would only distract.
        self.args = (self.message,)
