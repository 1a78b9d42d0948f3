"""The names that a server answers to: the base model under its served names, and adapters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Models:
    """Served names (the first labels the metrics), the version behind them, loaded adapters."""

    served: tuple[str, ...]
    version: str
    max_model_len: int
    created: int
    adapters: dict[str, str] = field(default_factory=dict)
    """Adapter name to path, as --lora-modules or /v1/load_lora_adapter gave it."""

    def knows(self, name: str) -> bool:
        """Whether requests may name it."""
        return name in self.served or name in self.adapters

    def adapter(self, name: str) -> str | None:
        """The adapter behind a name, None for the base model."""
        return name if name in self.adapters else None

    def listing(self) -> dict[str, Any]:
        """The body of GET /v1/models: base names first, adapters with their parent."""
        base = [self._card(name, root=self.version, parent=None) for name in self.served]
        adapters = [
            self._card(name, root=path, parent=self.served[0])
            for name, path in self.adapters.items()
        ]
        return {"object": "list", "data": [*base, *adapters]}

    def _card(self, name: str, *, root: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": self.max_model_len if parent is None else None,
            "permission": [
                {
                    "id": f"modelperm-{name}",
                    "object": "model_permission",
                    "created": self.created,
                    "allow_create_engine": False,
                    "allow_sampling": True,
                    "allow_logprobs": True,
                    "allow_search_indices": False,
                    "allow_view": True,
                    "allow_fine_tuning": False,
                    "organization": "*",
                    "group": None,
                    "is_blocking": False,
                }
            ],
        }
