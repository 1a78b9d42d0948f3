"""Every file of manifests/examples is applied as it is and becomes healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from inference_common.kube import ROLLOUT
from support.repository import EXAMPLES

if TYPE_CHECKING:
    from support.scenario import Scenario


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(path.name, path.read_text(), id=path.stem)
        for path in sorted(EXAMPLES.glob("*.yaml"))
    ],
)
async def test_example_becomes_healthy_as_it_is(scenario: Scenario, name: str, text: str) -> None:
    path = str(EXAMPLES / name)
    await scenario.cluster.kubectl("apply", "--namespace", scenario.namespace, "-f", path)
    for obj in yaml.safe_load_all(text):
        name = obj["metadata"]["name"]
        if obj["kind"] == ROLLOUT.kind:
            await scenario.until_healthy(name, timeout_s=180)
        elif obj["kind"] == "Deployment":
            await scenario.until_available(name)
        elif obj["kind"] == "HTTPRoute":
            await scenario.until_accepted(name)
