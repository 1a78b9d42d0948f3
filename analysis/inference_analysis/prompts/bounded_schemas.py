"""JSON Schema 2020-12 whose patterns are searched for a bounded time.

The keywords with patterns are ours; all others are jsonschema's. What is accepted is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from inference_analysis.prompts.patterns import first_match

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Schema = Mapping[str, Any]


def _pattern(
    validator: Any, wanted: str, instance: object, _schema: Schema
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and first_match(wanted, str(instance)) is None:
        yield ValidationError(f"{instance!r} does not match {wanted!r}")


def _pattern_properties(
    validator: Any, wanted: Schema, instance: Any, _schema: Schema
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for name, rules in wanted.items():
        for key, value in instance.items():
            if first_match(name, key) is not None:
                yield from validator.descend(value, rules, path=key, schema_path=name)


def _additional_properties(
    validator: Any, rules: object, instance: Any, schema: Schema
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [
        key
        for key in instance
        if key not in named and all(first_match(name, key) is None for name in patterns)
    ]
    if validator.is_type(rules, "object"):
        for key in extra:
            yield from validator.descend(instance[key], rules, path=key)
    elif not rules and extra:
        yield ValidationError(f"Additional properties are not allowed: {', '.join(extra)}")


BoundedValidator: Final[Any] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    },
)
