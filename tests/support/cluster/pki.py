"""The cluster's own certificate authority, and the credentials it issues."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LIFE: Final = dt.timedelta(days=365)
# Clocks of one machine agree, but a certificate from this very second is not valid before it.
_MARGIN: Final = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority. ``certificate`` is the file that others trust."""

    certificate: Path
    _subject: x509.Name
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, folder: Path, name: str) -> Authority:
        """Create one; its private key stays in memory and dies with this process."""
        key = _new_key()
        subject = _name(name)
        builder = _builder(subject, subject, key.public_key(), key.public_key(), authority=True)
        path = folder / f"{name}.crt"
        _write(path, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return cls(path, subject, key)

    def server(self, folder: Path, name: str, hosts: Sequence[str]) -> Issued:
        """Issue a certificate for these names and addresses, usable by clients too (etcd)."""
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(folder, name, _name(name), usages, names)

    def client(self, folder: Path, name: str, user: str, groups: Sequence[str] = ()) -> Issued:
        """Issue a certificate whose CN and O Kubernetes reads as user name and groups."""
        return self._issue(folder, name, _name(user, groups), [ExtendedKeyUsageOID.CLIENT_AUTH])

    def _issue(
        self,
        folder: Path,
        name: str,
        subject: x509.Name,
        usages: Sequence[x509.ObjectIdentifier],
        names: x509.SubjectAlternativeName | None = None,
    ) -> Issued:
        key = _new_key()
        issuer = self._key.public_key()
        builder = _builder(subject, self._subject, key.public_key(), issuer, authority=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        issued = Issued(folder / f"{name}.crt", folder / f"{name}.key")
        _write(issued.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        _write(issued.key, _private(key))
        return issued


def key_pair(folder: Path, name: str) -> Issued:
    """Create a bare key pair; ``certificate`` is the public key (service account tokens)."""
    key = _new_key()
    issued = Issued(folder / f"{name}.pub", folder / f"{name}.key")
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(issued.certificate, public)
    _write(issued.key, _private(key))
    return issued


def write_kubeconfig(path: Path, *, server: str, authority: Path, user: Issued) -> None:
    """Write a kubeconfig with everything inside, so that the file works from anywhere."""

    def data(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "local",
        "clusters": [
            {
                "name": "local",
                "cluster": {"server": server, "certificate-authority-data": data(authority)},
            }
        ],
        "users": [
            {
                "name": "local",
                "user": {
                    "client-certificate-data": data(user.certificate),
                    "client-key-data": data(user.key),
                },
            }
        ],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
    }
    _write(path, yaml.safe_dump(document, sort_keys=False).encode())


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    *,
    authority: bool,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _MARGIN)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
        )
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        # The form that Go's and every other TLS library reads.
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
