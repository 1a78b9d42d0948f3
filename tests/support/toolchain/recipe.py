"""What is built, from which pinned modules, with which flags."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.repository import ROOT

FOLDER: Final = Path(__file__).resolve().parent
"""One folder per recipe with the go.mod and go.sum that pin everything it is built from."""

KUBERNETES_VERSION: Final = "v1.36.3"
ARGO_VERSION: Final = "v1.10.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One line of one file of a module, replaced in a copy of the module for the build."""

    module: str
    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A set of binaries from one go.mod.

    ``packages`` maps the binary's name to its Go package; ``sources`` adds files of our own to
    the digest, relative to ``folder``; ``estimate_s`` is the measured build time on two cores
    with an empty Go build cache.
    """

    name: str
    folder: Path
    packages: dict[str, str]
    ldflags: str = "-s -w"
    estimate_s: int
    patches: tuple[Patch, ...] = ()
    sources: tuple[str, ...] = ()

    def digest(self, go_version: str) -> str:
        """Name of this build: equal inputs give equal names, a changed input another one."""
        parts = [go_version, self.ldflags, repr(sorted(self.packages.items())), repr(self.patches)]
        found = [self.folder / "go.mod", self.folder / "go.sum"]
        for pattern in self.sources:
            matching = sorted(self.folder.rglob(pattern))
            found += [file for file in matching if not file.name.endswith("_test.go")]
        return _digest(self.folder, parts, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """Files of a module that are used as they are. ``globs`` are relative to the module."""

    name: str
    folder: Path
    module: str
    globs: tuple[str, ...]

    def digest(self, go_version: str) -> str:
        """Name of this extract. The Go version does not matter to files."""
        del go_version
        pins = [self.folder / "go.mod", self.folder / "go.sum"]
        return _digest(self.folder, [self.module, *self.globs], pins)


def _digest(folder: Path, parts: list[str], files: list[Path]) -> str:
    digest = hashlib.sha256("\0".join(parts).encode())
    for file in files:
        body = file.read_bytes()
        digest.update(f"\0{file.relative_to(folder)}\0{len(body)}\0".encode())
        digest.update(body)
    return digest.hexdigest()[:16]


_KUBERNETES_FLAGS: Final = " ".join(
    ["-s -w"]
    # Built from modules, the binaries would call themselves v0.0.0-master, which clients that
    # look at the server's version take for an ancient one.
    + [
        f"-X k8s.io/component-base/version.{key}={value}"
        for key, value in (
            ("gitVersion", KUBERNETES_VERSION),
            ("gitMajor", KUBERNETES_VERSION[1:].split(".")[0]),
            ("gitMinor", KUBERNETES_VERSION.split(".")[1]),
        )
    ]
)

_ARGO_MODULE: Final = "github.com/argoproj/argo-rollouts"

RECIPES: Final = (
    Recipe(
        name="etcd",
        folder=FOLDER / "etcd",
        packages={"etcd": "go.etcd.io/etcd/server/v3"},
        estimate_s=50,
    ),
    Recipe(
        name="kubernetes",
        folder=FOLDER / "kubernetes",
        packages={
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kubectl")
        },
        ldflags=_KUBERNETES_FLAGS,
        estimate_s=330,
    ),
    Recipe(
        name="argo-rollouts",
        folder=FOLDER / "argo-rollouts",
        packages={
            name: f"{_ARGO_MODULE}/cmd/{name}"
            for name in ("rollouts-controller", "kubectl-argo-rollouts")
        },
        ldflags=f"-s -w -X {_ARGO_MODULE}/utils/version.version={ARGO_VERSION}",
        estimate_s=170,
        # The controller offers no flag for the address of its metrics and health servers. This
        # is the only difference from upstream: nothing of the local cluster leaves the loopback.
        patches=(
            Patch(
                module=_ARGO_MODULE,
                file="controller/controller.go",
                old='= "0.0.0.0:%d"',
                new='= "127.0.0.1:%d"',
            ),
        ),
    ),
    Recipe(
        name="prometheus",
        folder=FOLDER / "prometheus",
        packages={
            name: f"github.com/prometheus/prometheus/cmd/{name}"
            for name in ("prometheus", "promtool")
        },
        estimate_s=290,
    ),
    Recipe(
        name="bridge",
        folder=ROOT / "plugin" / "bridge",
        packages={"bridge": "."},
        estimate_s=40,
        sources=("*.go",),
    ),
)

EXTRACTS: Final = (
    Extract(
        name="argo-rollouts-manifests",
        folder=FOLDER / "argo-rollouts",
        module=_ARGO_MODULE,
        globs=(
            "manifests/crds/*-crd.yaml",
            "manifests/role/argo-rollouts-clusterrole.yaml",
            "manifests/cluster-install/argo-rollouts-clusterrolebinding.yaml",
            "manifests/base/argo-rollouts-sa.yaml",
            "manifests/base/argo-rollouts-aggregate-roles.yaml",
        ),
    ),
    Extract(
        name="gateway-api-manifests",
        folder=FOLDER / "gateway-api",
        module="sigs.k8s.io/gateway-api",
        # What HTTP and gRPC traffic needs; each further CRD costs the API server time.
        globs=tuple(
            f"config/crd/standard/gateway.networking.k8s.io_{plural}.yaml"
            for plural in (
                "gatewayclasses",
                "gateways",
                "httproutes",
                "grpcroutes",
                "referencegrants",
            )
        ),
    ),
)
