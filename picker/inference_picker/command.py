"""`inference-rollouts picker`: the endpoint picker's command line."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from inference_picker.config_command import check_config
from inference_picker.explain_command import explain
from inference_picker.grpc_engine import choose_engine
from inference_picker.simulate_command import simulate

app = typer.Typer(
    name="picker",
    help="Choose the model server for each request (Envoy ext_proc, InferencePools).",
    no_args_is_help=True,
)


@app.callback()
def picker() -> None:
    """Choose the model server for each request."""


app.command("check-config")(check_config)
app.command()(explain)
app.command()(simulate)


@app.command()
def serve(
    pool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NS/]NAME[=PORT]",
            help="The InferencePool. Given several times, each needs an ext_proc port of its own.",
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option(help="Namespace of the pools that are named without one.")
    ] = "",
    endpoints: Annotated[
        Path | None,
        typer.Option(help="File of endpoints instead of a pool, for use without Kubernetes."),
    ] = None,
    pool_group: Annotated[
        str, typer.Option(help="API group of the pools.")
    ] = "inference.networking.k8s.io",
    address: Annotated[
        str,
        typer.Option(help="HOST:PORT of ext_proc and gRPC health; a pool's own port goes before."),
    ] = "0.0.0.0:9002",
    metrics_address: Annotated[
        str, typer.Option(help="HOST:PORT of /metrics, /healthz and /readyz.")
    ] = "0.0.0.0:9090",
    health_address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of plaintext gRPC health, for kubelets; else port 9003 of --address's "
            "host, 'none' for none."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="PEM certificate of the ext_proc port; read again when it changes. Else one is "
            "made up, as gateways do not verify it."
        ),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its PEM key.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Speak plaintext on the ext_proc port.")
    ] = False,
    kubeconfig: Annotated[
        str | None, typer.Option(help="Else $KUBECONFIG, else the pod's service account.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="EndpointPickerConfig, YAML: plugins and weights. Else load cost."),
    ] = None,
    fallbacks: Annotated[
        int, typer.Option(min=0, help="Endpoints that the gateway is told behind the first one.")
    ] = 0,
    expose_target_model: Annotated[
        bool,
        typer.Option(
            "--expose-target-model",
            help="Leave the target's name in answers instead of writing back the name that the "
            "client asked for.",
        ),
    ] = False,
    watch_share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the answers of neither canary nor control whose body passes through "
            "the picker, for the times of their tokens. Those of canary and control, and those "
            "whose model name is written back, always do.",
        ),
    ] = 0.05,
    pick_log: Annotated[
        Path | None,
        typer.Option(help="File for a JSON line on each request; `picker explain` reads it."),
    ] = None,
    max_body_bytes: Annotated[
        int, typer.Option(min=1024, help="Larger request bodies are answered with 413.")
    ] = 10 * 1024 * 1024,
    scrape_interval_s: Annotated[
        float,
        typer.Option(
            min=0.0, help="Seconds between two looks at a model server's metrics; 0 for none."
        ),
    ] = 0.2,
    scrape_path: Annotated[
        str, typer.Option(help="Path of the model servers' metrics pages.")
    ] = "/metrics",
    scrape_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Their port, where it is not that of the requests."),
    ] = None,
    models_interval_s: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks at /v1/models.")
    ] = 2.0,
    drain_delay_s: Annotated[
        float, typer.Option(min=0.0, help="Seconds from SIGTERM to no new streams.")
    ] = 3.0,
    drain_timeout_s: Annotated[
        float, typer.Option(min=0.0, help="Seconds for the streams that are left then.")
    ] = 120.0,
    log_format: Annotated[str, typer.Option(help="json or text.")] = "json",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve InferencePools, or a file of endpoints, until SIGTERM."""
    choose_engine(os.environ)
    import uvloop  # noqa: PLC0415 - help must not pay for it

    from inference_common.logs import configure_logging  # noqa: PLC0415
    from inference_picker.addresses import joined, split_address  # noqa: PLC0415
    from inference_picker.cluster import pool_resource  # noqa: PLC0415
    from inference_picker.config import PickerConfig, load_config  # noqa: PLC0415
    from inference_picker.director import Settings  # noqa: PLC0415
    from inference_picker.errors import ConfigError  # noqa: PLC0415
    from inference_picker.pool_names import read_pools  # noqa: PLC0415
    from inference_picker.serving import Options, serve_file, serve_pools  # noqa: PLC0415
    from inference_picker.tls import tls_of  # noqa: PLC0415

    configure_logging("picker", json=log_format == "json", level=log_level)
    try:
        pool_resource(pool_group)
        host, port = split_address(address, flag="--address")
        if health_address is None:
            health_address = joined(host, 9003)
        elif health_address != "none":
            split_address(health_address, flag="--health-address")

        def options_of(pool: str, namespace: str, port: int) -> Options:
            # Made anew for each pool: plugins and certificates that are read again have a state.
            return Options(
                address=joined(host, port),
                metrics_address=metrics_address,
                pool=pool,
                namespace=namespace,
                settings=Settings(
                    expose_target_model=expose_target_model,
                    fallbacks=fallbacks,
                    config=PickerConfig() if config is None else load_config(config),
                ),
                watch_share=watch_share,
                tls=tls_of(tls_cert, tls_key, insecure=insecure),
                health_address=None if health_address == "none" else health_address,
                scrape_interval_s=scrape_interval_s,
                scrape_path=scrape_path,
                scrape_port=scrape_port,
                pick_log=pick_log,
                max_body_bytes=max_body_bytes,
                models_interval_s=models_interval_s,
                drain_delay_s=drain_delay_s,
                drain_timeout_s=drain_timeout_s,
            )

        if endpoints is not None:
            if pool or namespace:
                raise ConfigError("--endpoints is instead of --pool and --namespace; give one.")
            served = serve_file(endpoints=endpoints, options=options_of("", "", port))
        elif pool:
            pools = read_pools(pool, namespace=namespace, port=port)
            served = serve_pools(
                [options_of(each.name, each.namespace, each.port) for each in pools],
                group=pool_group,
                kubeconfig=kubeconfig,
            )
        else:
            raise ConfigError("name a pool by --pool NAMESPACE/NAME, or a file by --endpoints.")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(served)
    except ConfigError as error:
        print(f"inference-rollouts picker serve: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(2) from error
