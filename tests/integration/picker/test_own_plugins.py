"""A scorer of the user's own, as docs/scheduling.md has it: packaged, installed, used."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inference_picker import wire
from support.repository import ROOT
from support.served_picker import picked, served

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND = Path(sys.executable).with_name("inference-rollouts")
SECTION = "### A scorer of your own"


def documented() -> dict[str, str]:
    """The first block of each language in the section of the page."""
    page = (ROOT / "docs" / "scheduling.md").read_text(encoding="utf-8")
    section = page[page.index(SECTION) :]
    section = section[: section.index("\n## ")]
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, flags=re.DOTALL)
    return dict(reversed(blocks))


def wheel_of(directory: Path, project: Mapping[str, Any], files: Mapping[str, str]) -> Path:
    """The wheel that a build of the project gives (PyPA's binary distribution format)."""
    name = project["name"].replace("-", "_")
    info = f"{name}-{project['version']}.dist-info"
    groups = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    )
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project['name']}\n"
        f"Version: {project['version']}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": groups,
    }
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    wheel = directory / f"{name}-{project['version']}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documented configuration, where the documented package is installed."""
    blocks = documented()
    project = tomllib.loads(blocks["toml"])["project"]
    wheel = wheel_of(tmp_path, project, {"cheap_first.py": blocks["python"]})
    site = tmp_path / "site"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
            *("--disable-pip-version-check", "--target", site, wheel),
        ],
        check=True,
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    path = tmp_path / "config.yaml"
    path.write_text(blocks["yaml"])
    return path


def check(path: Path) -> tuple[int, str]:
    done = subprocess.run(
        [COMMAND, "picker", "check-config", path],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_check_config_finds_the_installed_scorer(config: Path) -> None:
    status, text = check(config)

    assert status == 0, text
    assert "  scorer  cheap-first-scorer  weight 1  (cheap_first.CheapFirst)\n" in text
    assert "  scorer  load-cost-scorer  weight 1\n" in text


def test_without_the_package_the_name_is_not_known(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")

    status, text = check(config)

    assert status == 2
    assert "plugin type 'cheap-first-scorer' is not known" in text


def test_a_wrong_parameter_of_the_scorer_is_named(config: Path) -> None:
    config.write_text(config.read_text().replace("label: cost", "lable: cost"))

    status, text = check(config)

    assert status == 2
    assert "parameters of cheap-first-scorer" in text
    assert "lable" in text


async def test_the_installed_scorer_decides_on_picks(config: Path, tmp_path: Path) -> None:
    endpoints = tmp_path / "endpoints.yaml"
    endpoints.write_text(
        "endpoints:\n"
        '- {address: "127.0.0.1:18001", labels: {cost: high}}\n'
        '- {address: "127.0.0.1:18002", labels: {cost: low}}\n'
    )
    async with (
        served("--endpoints", str(endpoints), "--config", str(config), "--insecure") as picker,
        grpc.aio.insecure_channel(picker.address) as channel,
    ):
        await picker.until_status("readyz", 200)
        method: Any = channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")

        assert {await picked(method) for _ in range(5)} == {"127.0.0.1:18002"}
