"""TLS of the ext_proc port: a certificate from files, read again when they change, or one made up.

Gateways that follow the endpoint picker protocol speak TLS to the picker and verify nothing, so a
self-signed certificate in memory is what a picker starts with.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from inference_picker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_log = structlog.get_logger(__name__)

_YEARS: Final = 10
_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate chain and its private key, both PEM."""

    certificate: bytes
    key: bytes


def self_signed(now: dt.datetime) -> KeyPair:
    """A new key and a certificate for it, valid from the day before ``now``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "inference-picker")])
    names = x509.SubjectAlternativeName([x509.DNSName("inference-picker")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of a cluster's nodes differ.
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 365 * _YEARS * _DAY)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def read_pair(certificate: Path, key: Path) -> KeyPair:
    """The pair in two files. Raises ConfigError where they are none, or don't belong together."""
    try:
        pair = KeyPair(certificate=certificate.read_bytes(), key=key.read_bytes())
    except OSError as error:
        raise ConfigError(f"--tls-cert and --tls-key: can't be read: {error}") from error
    try:
        public = x509.load_pem_x509_certificates(pair.certificate)[0].public_key()
        private = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"--tls-cert {certificate}, --tls-key {key}: no PEM certificate and unencrypted PEM "
            f"key: {error}"
        ) from error
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*spki) != public.public_bytes(*spki):
        raise ConfigError(f"--tls-key {key} is not the key of --tls-cert {certificate}.")
    return pair


class FilePair:
    """A pair in two files that may be replaced at any time, as mounted Secrets are."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files. Raises ConfigError where they can't be used."""
        self._files = (certificate, key)
        self._seen = self._state()
        self.current = read_pair(certificate, key)

    def changed(self) -> KeyPair | None:
        """The pair that the files hold now, once after they changed; never raises.

        Halves of two pairs are left alone until the other half is there too.
        """
        state = self._state()
        if state == self._seen:
            return None
        try:
            pair = read_pair(*self._files)
        except ConfigError as error:
            _log.warning("the new certificate can't be used, the old one stays", error=str(error))
            return None
        self._seen = state
        if pair == self.current:
            return None
        self.current = pair
        _log.info("certificate reloaded", file=str(self._files[0]))
        return pair

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in self._files:
            try:
                # Through the links of a mounted Secret.
                status = path.stat()
            except OSError:
                return ()
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What the ext_proc port speaks TLS with: files, or a certificate that is made up."""

    files: FilePair | None = None


def tls_of(certificate: Path | None, key: Path | None, *, insecure: bool) -> Tls | None:
    """What the flags ask for, None for plaintext. Raises ConfigError for a contradiction."""
    if (certificate is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key: give both, or neither.")
    if certificate is None or key is None:
        return None if insecure else Tls()
    if insecure:
        raise ConfigError("--insecure: give it without --tls-cert and --tls-key.")
    return Tls(files=FilePair(certificate, key))


def credentials(tls: Tls, now: dt.datetime) -> grpc.ServerCredentials:
    """Credentials for a gRPC server."""
    if tls.files is None:
        pair = self_signed(now)
        return grpc.ssl_server_credentials([(pair.key, pair.certificate)])
    files = tls.files

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        changed = files.changed()
        return None if changed is None else _configuration(changed)

    # None means that nothing has changed; the stubs do not know that.
    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.current),
        fetch,  # type: ignore[arg-type]
    )


def _configuration(pair: KeyPair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)])
