"""All checks, in the order in which a fault explains the next one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from inference_common.errors import KubeError
from inference_common.kube import CONFIGMAP, DEPLOYMENT, LEASE, POD, ROLLOUT
from inference_plugin.carriers import Permissions
from inference_plugin.cluster import WATCHED
from inference_plugin.doctor import controller, plugin_entry
from inference_plugin.doctor.checks import Check, fail, ok, skipped
from inference_plugin.doctor.rights import NEEDS, check_rights
from inference_plugin.doctor.rollouts import check_rollouts
from inference_plugin.doctor.server import Door, check_server
from inference_plugin.doctor.types import check_types
from inference_plugin.explain.live import Unread, live_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inference_common.kube import Resource
    from inference_plugin.explain.live import NarrowKube

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What to look at: where Argo Rollouts is, whose rights, which Rollouts, which server."""

    argo_namespace: str = "argo-rollouts"
    account: str | None = None
    namespace: str | None = None
    allowed: frozenset[str] = frozenset()
    door: Door = field(default_factory=Door)


async def examine(kube: NarrowKube, questions: Questions) -> AsyncIterator[Check]:
    """Every check, as it is done."""
    try:
        version = await kube.raw("/version")
    except KubeError as error:
        yield fail("API server", str(error), "see --kubeconfig, and whether the server is up")
        return
    yield ok("API server", f"{kube.host}, {version.get('gitVersion', 'version unknown')}")
    served = {
        need: await kube.find(need.group, need.kind, need.version) if need.group else need
        for need in {*WATCHED, *(need.resource for need in NEEDS)}
    }
    for check in check_types(served):
        yield check
    async for check in _argo(kube, questions, {n for n, found in served.items() if found}):
        yield check
    for check in await check_server(questions.door):
        yield check
    if served.get(ROLLOUT) is not None:
        async for check in _rollouts(kube, questions):
            yield check


async def _argo(
    kube: NarrowKube, questions: Questions, served: set[Resource]
) -> AsyncIterator[Check]:
    where = questions.argo_namespace
    deployments = await _list(kube, DEPLOYMENT, where)
    pods = await _list(kube, POD, where)
    config_map = await _get(kube, CONFIGMAP, where, plugin_entry.NAME)
    found = controller.controller_of(deployments)
    servers = controller.servers_of(deployments)
    for check in controller.check_controller(found, where):
        yield check
    entry, checks = plugin_entry.entry_of(config_map, f"{where}/{plugin_entry.NAME}")
    for check in checks:
        yield check
    for check in controller.check_mounts(entry, found, servers):
        yield check
    for check in controller.check_restart(config_map, pods, found):
        yield check
    accounts = [questions.account] if questions.account else [each.account for each in servers]
    for account in dict.fromkeys(accounts):
        yield await check_rights(kube, account, served)
    if not accounts:
        yield skipped(
            "rights",
            f"no Deployment in {where} runs `plugin serve`",
            "name the server's ServiceAccount by --service-account NAMESPACE/NAME",
        )
    lease = None
    named = next((name for each in servers if (name := each.argument("--lease"))), "")
    if named:
        namespace, _, short = named.partition("/")
        lease = await _get(kube, LEASE, namespace, short)
    for check in controller.check_servers(servers, lease, _age_s(lease)):
        yield check


async def _rollouts(kube: NarrowKube, questions: Questions) -> AsyncIterator[Check]:
    kube.only = questions.namespace
    try:
        async with live_view(kube) as cluster:
            permissions = Permissions(namespaces=questions.allowed)
            for check in check_rollouts(cluster, now=time.time(), permissions=permissions):
                yield check
    except Unread as error:
        yield skipped("rollouts", str(error), "give rights to read, or --namespace")


async def _list(kube: NarrowKube, resource: Resource, namespace: str) -> list[Object]:
    try:
        found: list[Object] = (await kube.list(resource, namespace)).get("items") or []
    except KubeError:
        return []
    return found


async def _get(kube: NarrowKube, resource: Resource, namespace: str, name: str) -> Object | None:
    try:
        return await kube.get(resource, name, namespace)
    except KubeError:
        return None


def _age_s(lease: Object | None) -> float | None:
    """Seconds since the Lease was renewed, by this machine's clock."""
    renewed = ((lease or {}).get("spec") or {}).get("renewTime")
    return time.time() - datetime.fromisoformat(renewed).timestamp() if renewed else None
