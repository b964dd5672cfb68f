"""What values a field of the configuration takes, read from its annotation: the one source for reader, messages and docs."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin


@dataclass(frozen=True)
class FieldType:
    """Values that a field takes. `field_type` makes it.

    Attributes:
        plain: Types without structure: `int`, `float`, `bool`, `str`.
        choices: Words that the field takes.
        items: Type of a list's items; None where the field takes no list.
        optional: Whether None is a value.
    """

    plain: tuple[type, ...]
    choices: tuple[str, ...]
    items: FieldType | None
    optional: bool

    @property
    def is_text(self) -> bool:
        """Whether any text is a value."""
        return str in self.plain

    @property
    def words(self) -> tuple[str, ...]:
        """All words that it takes, those for a list's items included, and `none`."""
        items = self.items.words if self.items else ()
        return (*self.choices, *items, *(("none",) if self.optional else ()))

    def spelled_out(self, value: Any) -> Any:
        """The value that was meant: `none` means None, and a single value stands for a list of one."""
        if self.optional and isinstance(value, str) and value.lower() == "none":
            return None
        if self.items is None or isinstance(value, list) or value is None or value in self.choices:
            return value
        return [value]


def field_type(annotation: Any) -> FieldType:
    """The values that an annotation allows.

    Args:
        annotation: Of a field of `trainer.config.schema`.
    """
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    lists = [part for part in parts if get_origin(part) is list]
    return FieldType(
        plain=tuple(part for part in parts if part in (int, float, bool, str)),
        choices=tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part)),
        items=field_type(get_args(lists[0])[0]) if lists else None,
        optional=type(None) in parts,
    )


LARGEST_INT = 2**53
