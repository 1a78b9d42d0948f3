"""Manifests as they are written: objects, and the line that each of their fields stands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Object = dict[str, Any]
Place = tuple[str | int, ...]
SUFFIXES: Final = (".yaml", ".yml", ".json")


class ManifestError(Exception):
    """A file that holds no manifests: where, and what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object of a file. ``namespace`` is the one it goes to, given or by default."""

    obj: Object
    file: str
    lines: Mapping[Place, int]
    namespace: str

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.obj.get("kind", ""))

    @property
    def group(self) -> str:
        """Its API group, empty for the core one."""
        group, slash, _ = str(self.obj.get("apiVersion", "")).partition("/")
        return group if slash else ""

    @property
    def name(self) -> str:
        """Its name."""
        return str((self.obj.get("metadata") or {}).get("name", ""))

    @property
    def title(self) -> str:
        """The object for a message."""
        return f"{self.kind} {self.namespace}/{self.name}"

    def line(self, *place: str | int) -> int:
        """The line of that field, or of the nearest one around it that is there."""
        for end in range(len(place), -1, -1):
            found = self.lines.get(place[:end])
            if found is not None:
                return found
        return 1


def files_of(path: Path) -> list[Path]:
    """The path itself, or every manifest below a folder, in order.

    Files of kustomize that are no objects of the API server are left out.
    """
    if not path.is_dir():
        return [path]
    found = (file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES)
    return [file for file in found if not file.stem.startswith("kustomization")]


def read_documents(
    text: str, file: str, default_namespace: str, *, strays: bool = False
) -> list[Document]:
    """The objects of a YAML or JSON file; those of a List one by one.

    Raises ManifestError for text that is no YAML, and for a document that is no object unless
    ``strays`` allows them: a folder may hold values and configurations of other programs.
    """
    found: list[Document] = []
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            # Constructing first resolves merge keys in the nodes themselves.
            obj = loader.construct_document(node)
            if node is None or obj is None:
                continue
            if not isinstance(obj, dict) or not {"apiVersion", "kind"} <= obj.keys():
                if strays:
                    continue
                raise ManifestError(
                    f"{file}:{node.start_mark.line + 1}: no Kubernetes object: it has no "
                    "apiVersion and kind. Give manifests only."
                )
            lines = dict(_lines(node, ()))
            found += _split(obj, file, lines, default_namespace)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        raise ManifestError(f"{where}: not YAML: {getattr(error, 'problem', error)}.") from error
    finally:
        loader.dispose()
    return found


def _split(obj: Object, file: str, lines: Mapping[Place, int], default: str) -> Iterator[Document]:
    if not (obj["kind"] == "List" and isinstance(obj.get("items"), list)):
        yield _document(obj, file, lines, default)
        return
    for index, item in enumerate(obj["items"]):
        if isinstance(item, dict) and "kind" in item:
            at = ("items", index)
            inner = {place[2:]: line for place, line in lines.items() if place[:2] == at}
            yield _document(item, file, inner, default)


def _document(obj: Object, file: str, lines: Mapping[Place, int], default: str) -> Document:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise ManifestError(f"{file}:{lines.get((), 1)}: {obj['kind']} has no metadata.name.")
    namespace = str(metadata.get("namespace") or default)
    return Document(
        obj=obj | {"metadata": metadata | {"namespace": namespace}},
        file=file,
        lines=lines,
        namespace=namespace,
    )


def _lines(node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield from _lines(value, (*place, key.value))
                # A block below its key is found at the key.
                yield (*place, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*place, index))
