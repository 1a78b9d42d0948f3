"""The files of manifests/analysis are applied as they are, and lint finds nothing in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support.repository import MANIFESTS

if TYPE_CHECKING:
    from support.scenario import Scenario

FILES = ("rbac.yaml", "defaults.yaml", "templates.yaml", "web.yaml")


async def test_the_manifests_are_accepted_and_the_web_server_becomes_ready(
    scenario: Scenario,
) -> None:
    folder = MANIFESTS / "analysis"
    assert {path.name for path in folder.iterdir()} == {*FILES, "kustomization.yaml"}
    for name in FILES:
        path = str(folder / name)
        await scenario.cluster.kubectl("apply", "--namespace", scenario.namespace, "-f", path)
    await scenario.until_available("inference-analysis")
    code, text, problems = await a.analysis("lint", *(str(folder / name) for name in FILES))
    assert (code, problems) == (0, ""), text
