"""Documentation of each setting, read from the code, for the pages and forms that explain it."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise

from pydantic import BaseModel

from trainer.config.field_type import field_type
from trainer.config.loader import known_keys

_KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def field_docs(group: type[BaseModel]) -> dict[str, str]:
    """Read the docstring under each field, on one line; pydantic would do so at every start, before the first frame."""
    (node,) = ast.parse(inspect.getsource(group)).body
    assert isinstance(node, ast.ClassDef)
    docs = {}
    for field, after in pairwise(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[ast.unparse(field.target)] = " ".join(str(after.value.value).split())
    return docs


def value_words(annotation: object) -> list[str]:
    """Values that a field accepts, as Markdown: literal ones in backquotes."""
    kind = field_type(annotation)
    words = [f"`{word}`" for word in kind.words]
    if kind.items:
        words.append(" of ".join(["list", *(f"{_KINDS[part]}s" for part in kind.items.plain)]))
    return words + [_KINDS[part] for part in kind.plain]


def explanation(key: str) -> tuple[str, list[str]]:
    """Return the meaning of a setting, one of `known_keys`, and the values that it accepts."""
    group, name = known_keys()[key], key.partition(".")[2]
    return field_docs(group)[name], value_words(group.model_fields[name].annotation)
