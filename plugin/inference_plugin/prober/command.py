"""``inference-rollouts prober``: the adapter prober's command line."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

app = typer.Typer(
    help="Be Ready when the pods of an InferencePool serve a model or adapter.",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def prober(
    pool: Annotated[str, typer.Option(help="InferencePool whose pods are asked.")],
    namespace: Annotated[
        str, typer.Option(envvar="POD_NAMESPACE", help="Namespace of pool, pods and Rollout.")
    ],
    name: Annotated[str, typer.Option(help="Adapter or model that /v1/models must list.")],
    address: Annotated[str, typer.Option(help="IP:PORT of /readyz, /healthz, /metrics.")],
    pool_group: Annotated[
        str,
        typer.Option(
            help="API group of the pool: inference.networking.k8s.io (v1) or "
            "inference.networking.x-k8s.io (v1alpha2)."
        ),
    ] = "inference.networking.k8s.io",
    identity: Annotated[
        str,
        typer.Option(
            help="What the pods must contain: root=MODEL, image=REFERENCE, label:KEY=VALUE, "
            "annotation:KEY=VALUE; comma-separated."
        ),
    ] = "",
    load_grace_s: Annotated[
        float,
        typer.Option(min=0, help="A pod that became ready more recently is not counted."),
    ] = 60.0,
    missing_probes: Annotated[
        int, typer.Option(min=1, help="Answers in a row without the name that end Ready.")
    ] = 3,
    interval_s: Annotated[
        float, typer.Option(min=0.05, help="Between two rounds, while Ready.")
    ] = 2.0,
    timeout_s: Annotated[float, typer.Option(min=0.05, help="Of one probe.")] = 2.0,
    rollout: Annotated[
        str | None,
        typer.Option(
            help="The Rollout of this pod. With it and --revision the prober of the stable "
            "revision stays Ready while any pod serves the name."
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            envvar="POD_TEMPLATE_HASH",
            help="This pod's label rollouts-pod-template-hash.",
        ),
    ] = None,
    kubeconfig: Annotated[str | None, typer.Option(help="Default: $KUBECONFIG or in-cluster.")] = (
        None
    ),
    log_json: Annotated[bool, typer.Option(help="JSON lines instead of text.")] = True,
    log_level: Annotated[str, typer.Option(help="debug, info, warning, error.")] = "info",
) -> None:
    """Ask each ready pod's /v1/models for a name; /readyz says whether the pool serves it."""
    # Imported here so that --help and completion need no HTTP stack.
    from inference_common.logs import configure_logging  # noqa: PLC0415
    from inference_plugin.prober.decision import Rules  # noqa: PLC0415
    from inference_plugin.prober.identity import IdentityError, parse_identity  # noqa: PLC0415
    from inference_plugin.prober.rounds import Target  # noqa: PLC0415
    from inference_plugin.prober.server import serve  # noqa: PLC0415

    groups = ("inference.networking.k8s.io", "inference.networking.x-k8s.io")
    if pool_group not in groups:
        raise typer.BadParameter(f"--pool-group: found {pool_group}, known: {', '.join(groups)}")
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise typer.BadParameter(f"--address: found {address!r}, expected IP:PORT")
    try:
        conditions = parse_identity(identity)
    except IdentityError as error:
        raise typer.BadParameter(str(error)) from error
    configure_logging("prober", json=log_json, level=log_level)
    target = Target(
        namespace=namespace,
        pool=pool,
        name=name,
        identity=conditions,
        rules=Rules(load_grace_s=load_grace_s, missing_probes=missing_probes),
    )
    watch = {
        "namespace": namespace,
        "pool": pool,
        "pool_group": pool_group,
        "rollout": rollout,
        "revision": revision,
    }
    asyncio.run(
        serve(
            target,
            address=(host.strip("[]"), int(port)),
            interval_s=interval_s,
            timeout_s=timeout_s,
            kubeconfig=kubeconfig,
            watch=watch,
        )
    )
