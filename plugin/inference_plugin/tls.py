"""Mutual TLS of the server's port: certificates that are read anew, callers that are known."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog
from grpc import aio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_log = structlog.get_logger(__name__)
_NAMES: Final = ("x509_common_name", "x509_subject_alternative_name")
"""Properties of gRPC's authentication context that hold a client certificate's names."""

Stamp = tuple[tuple[int, int, int], ...]


class CertificateError(Exception):
    """Files that are no certificate, key and authority that belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """PEM files: the server's certificate chain, its key, and who may issue clients' ones."""

    certificate: Path
    key: Path
    client_authority: Path

    def stamp(self) -> Stamp:
        """What changes when one of the files does. Raises OSError."""
        found = (path.stat() for path in (self.certificate, self.key, self.client_authority))
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)

    def read(self) -> grpc.ServerCertificateConfiguration:
        """The files as gRPC wants them. Raises CertificateError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # gRPC would only fail each handshake; here the files are known by name.
            context.load_cert_chain(self.certificate, self.key)
            context.load_verify_locations(self.client_authority)
            return grpc.ssl_server_certificate_configuration(
                [(self.key.read_bytes(), self.certificate.read_bytes())],
                root_certificates=self.client_authority.read_bytes(),
            )
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(
                f"{self.certificate}, {self.key} and {self.client_authority} can't be used: "
                f"{error}. They must be PEM: a certificate chain, its private key, and the "
                "certificates of the authority that issues the callers' ones."
            ) from error


class Certificates:
    """The certificate in use, exchanged when the files change; a broken change is not taken."""

    def __init__(self, files: CertificateFiles) -> None:
        """Read them. Raises CertificateError."""
        self._files = files
        self._first = files.read()
        self._stamp: Stamp | None = self._look()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that ask for a client certificate and look at the files per handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._renewed,  # type: ignore[arg-type, unused-ignore] # None is allowed: no change
            require_client_authentication=True,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None to go on with the present one."""
        stamp = self._look()
        if stamp is None or stamp == self._stamp:
            return None
        try:
            found = self._files.read()
        except CertificateError as error:
            _log.warning("new certificate not taken", error=str(error))
            return None
        self._stamp = stamp
        _log.info("certificate renewed", file=str(self._files.certificate))
        return found

    def _look(self) -> Stamp | None:
        try:
            return self._files.stamp()
        except OSError:
            return None


class KnownCallers(aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Lets in callers whose certificate has one of these names (CN, DNS or URI)."""

    def __init__(self, names: frozenset[str]) -> None:
        """An empty set lets in everybody whom the authority has issued a certificate."""
        self._names = names

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler, behind a look at the caller."""
        handler = await continuation(handler_call_details)
        if handler is None or not self._names:
            return handler
        if handler.unary_unary is None:
            # Only the health service streams, and it tells nothing but whether the server is ready.
            return handler
        inner = handler.unary_unary

        async def checked(request: Any, context: Any) -> Any:
            names = names_of(context.auth_context())
            if not names & self._names:
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"the certificate is of {', '.join(sorted(names)) or 'nobody'}, the server "
                    f"lets in {', '.join(sorted(self._names))} (--tls-client-name)",
                )
            return await inner(request, context)

        return grpc.unary_unary_rpc_method_handler(
            checked,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def names_of(properties: Any) -> frozenset[str]:
    """The names in a caller's certificate, from gRPC's authentication context."""
    return frozenset(
        value.decode(errors="replace")
        for key in _NAMES
        for value in (properties or {}).get(key, ())
    )
