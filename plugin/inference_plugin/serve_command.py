"""``inference-rollouts plugin serve``: the server that the bridge talks to."""

from __future__ import annotations

import asyncio
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inference_plugin.tls import CertificateFiles


def serve(
    socket: Annotated[
        Path | None, typer.Option(help="Unix socket that the bridge connects to.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT for bridges elsewhere, over mutual TLS; needs the --tls-…."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file with the server's certificate chain.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM file with who issues the bridges' certificates.")
    ] = None,
    tls_client_name: Annotated[
        list[str] | None,
        typer.Option(help="Name (CN, DNS or URI) in a bridge's certificate; any if left out."),
    ] = None,
    connection_age_s: Annotated[
        float, typer.Option(help="Seconds until a TLS connection is renewed.", min=1)
    ] = 600.0,
    lease: Annotated[
        str | None,
        typer.Option(help="NAMESPACE/NAME of the Lease that several servers compete for."),
    ] = None,
    lease_identity: Annotated[
        str,
        typer.Option(help="This server's name in the Lease; else its pod's, or host and a number."),
    ] = "",
    prometheus: Annotated[
        str | None,
        typer.Option(help="URL of the Prometheus that a dataPlaneProof is asked of."),
    ] = None,
    metrics_address: Annotated[
        str | None, typer.Option(help="HOST:PORT for Prometheus metrics; none if left out.")
    ] = None,
    kubeconfig: Annotated[
        str | None, typer.Option(help="Kubeconfig; else $KUBECONFIG, ~/.kube/config, in-cluster.")
    ] = None,
    allow_namespace: Annotated[
        list[str] | None,
        typer.Option(
            help="Another namespace than the Rollout's in which it may name routes; '*' for any."
        ),
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the bridge until the process is told to stop.

    Exit code 0: stopped by SIGTERM or SIGINT; 1: it could not start; 2: an option is wrong.
    """
    # gRPC and the Kubernetes client take their time to import; --help does not need them.
    from inference_common.logs import configure_logging  # noqa: PLC0415
    from inference_plugin.carriers import Permissions  # noqa: PLC0415
    from inference_plugin.server import Settings  # noqa: PLC0415
    from inference_plugin.server import serve as served  # noqa: PLC0415
    from inference_plugin.tls import CertificateError  # noqa: PLC0415

    if socket is None and address is None:
        raise typer.BadParameter("give --socket, --address, or both")
    configure_logging("plugin", json=log_json, level=log_level)
    settings = Settings(
        socket=socket,
        address=address,
        certificates=_certificates(address, tls_cert, tls_key, tls_client_ca),
        callers=frozenset(tls_client_name or ()),
        connection_age_s=connection_age_s,
        lease=_lease(lease),
        identity=lease_identity,
        prometheus=_url(prometheus),
        metrics=_address(metrics_address),
        kubeconfig=kubeconfig,
        permissions=Permissions(namespaces=frozenset(allow_namespace or ())),
    )
    try:
        with asyncio.Runner(loop_factory=_new_loop()) as runner:
            runner.run(served(settings))
    except (CertificateError, RuntimeError) as error:
        typer.echo(f"serve: {error}", err=True)
        raise typer.Exit(1) from error


def _certificates(
    address: str | None, certificate: Path | None, key: Path | None, authority: Path | None
) -> CertificateFiles | None:
    from inference_plugin.tls import CertificateFiles  # noqa: PLC0415

    if address is None:
        if certificate or key or authority:
            raise typer.BadParameter("--tls-… belong to --address; a unix socket has no TLS")
        return None
    _address(address)
    if certificate is None or key is None or authority is None:
        raise typer.BadParameter(
            "--address needs --tls-cert, --tls-key and --tls-client-ca: whoever may call this "
            "port moves traffic"
        )
    return CertificateFiles(certificate=certificate, key=key, client_authority=authority)


def _new_loop() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise typer.BadParameter(f"{text!r} is not HOST:PORT, for example 127.0.0.1:9090")
    return host, int(port)


def _url(text: str | None) -> str | None:
    if text is not None and not text.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{text!r} is no http(s) URL, for example http://prometheus:9090")
    return text


def _lease(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    namespace, _, name = text.partition("/")
    if not namespace or not name:
        raise typer.BadParameter(f"{text!r} is not NAMESPACE/NAME")
    return namespace, name
