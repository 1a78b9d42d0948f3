"""Expansion of ``$(NAME)`` in command, args and env values of a container."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each ``$(NAME)`` that is known; unknown ones stay, and ``$$`` becomes ``$``.

    The rules of k8s.io/kubernetes/third_party/forked/golang/expansion: one pass from the left,
    so ``$$(NAME)`` is the way to write a literal ``$(NAME)``.
    """

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        return variables.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def expand_all(texts: Iterable[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """Expand each of the texts."""
    return tuple(expand(text, variables) for text in texts)
