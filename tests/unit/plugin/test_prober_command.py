from __future__ import annotations

import pytest
from typer.testing import CliRunner

from inference_plugin.prober.command import app

NEEDED = ["--pool", "p", "--namespace", "n", "--name", "v2", "--address", "127.0.0.1:8080"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--pool-group", "x"], "found x, known", id="pool-group"),
        pytest.param(["--address", "8080"], "found '8080', expected IP:PORT", id="address"),
        pytest.param(["--identity", "labels:a=b"], "identity: found 'labels:a=b'", id="identity"),
        pytest.param(["--missing-probes", "0"], "value for '--missing-probes'", id="probes"),
    ],
)
def test_a_mistake_is_named_before_anything_starts(flags: list[str], message: str) -> None:
    result = CliRunner().invoke(app, [*NEEDED, *flags], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
