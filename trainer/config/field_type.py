"""Values accepted by a field of the configuration, read from its annotation: the one source for reader, messages and docs."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin


@dataclass(frozen=True)
class FieldType:
    """Values that a field accepts. Created by `field_type`."""

    plain: tuple[type, ...]  # of `int`, `float`, `bool` and `str`
    choices: tuple[str, ...]  # accepted words
    items: FieldType | None  # type of a list's items; None where no list is accepted
    optional: bool  # accepts None

    @property
    def is_text(self) -> bool:
        """Whether any text is accepted."""
        return str in self.plain

    @property
    def words(self) -> tuple[str, ...]:
        """All words that the field accepts, including those for a list's items, and `none`."""
        items = self.items.words if self.items else ()
        return (*self.choices, *items, *(("none",) if self.optional else ()))

    def expand_shorthand(self, value: Any) -> Any:
        """Expand shorthands: `none` means None, and a single value means a list of one."""
        if self.optional and isinstance(value, str) and value.lower() == "none":
            return None
        if self.items is None or isinstance(value, list) or value is None or value in self.choices:
            return value
        return [value]


def field_type(annotation: Any) -> FieldType:
    """Determine the values that the annotation of a configuration field allows."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    lists = [part for part in parts if get_origin(part) is list]
    return FieldType(
        plain=tuple(part for part in parts if part in (int, float, bool, str)),
        choices=tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part)),
        items=field_type(get_args(lists[0])[0]) if lists else None,
        optional=type(None) in parts,
    )


LARGEST_INT = 2**53
