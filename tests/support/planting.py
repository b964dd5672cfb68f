"""Plants faults in the source of a module, for `benchmarks.planted_faults`.

A fault names a function, an expression or statement in it, and its replacement. Code is compared as syntax trees, so a fault
still applies after its function was reformatted or moved, as long as the changed piece itself is the same.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Fault:
    """A change of one piece of code.

    Attributes:
        name: Short, unique name.
        function: Dotted name with module and class: `trainer.training.sgd.Sgd.step`.
        old: One expression or one statement of the function.
        new: The code in its place; `pass` deletes a statement.
    """

    name: str
    function: str
    old: str
    new: str


@dataclass(frozen=True)
class Place:
    """The place of a fault.

    Attributes:
        lines: Line numbers of the statement, or of the header of a compound statement.
        source: The module's source with the fault in it.
    """

    module: str
    lines: range
    source: str


class NotPlacedError(Exception):
    """The code that a fault changes is missing or occurs more than once."""


def read_sources(root: Path, packages: Collection[str]) -> dict[str, str]:
    """The source of every module of some packages, by dotted name."""
    paths = sorted(path for package in packages for path in (root / package).rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts): path.read_text() for path in paths}


def place(fault: Fault, sources: Mapping[str, str]) -> Place:
    """Plant a fault in the function that it names, or in one of that name elsewhere; NotPlacedError if the code is not unique."""
    last = fault.function.rsplit(".", 1)[-1]
    own: list[tuple[str, Function, ast.expr | ast.stmt]] = []
    others: list[tuple[str, Function, ast.expr | ast.stmt]] = []
    for module, source in sources.items():
        if f"def {last}(" not in source:
            continue
        for name, function in functions_of(ast.parse(source)):
            if name.rsplit(".", 1)[-1] == last:
                nodes = [(module, function, node) for node in _equal_nodes(function, fault)]
                (own if f"{module}.{name}" == fault.function else others).extend(nodes)
    chosen = own or others
    if len(chosen) != 1:
        raise NotPlacedError(f"`{fault.old}` is {len(chosen)} times in functions called {last}")
    module, function, node = chosen[0]
    return Place(module, _lines_of(function, node), _spliced(sources[module], node, fault.new))


def functions_of(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """All functions below a node by qualified name; conditional definitions too."""
    for node in ast.iter_child_nodes(tree):
        inner = prefix
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner = f"{prefix}{node.name}."
            if not isinstance(node, ast.ClassDef):
                yield prefix + node.name, node
        yield from functions_of(node, inner)


def _parsed(code: str) -> ast.expr | ast.stmt:
    try:
        return ast.parse(code, mode="eval").body
    except SyntaxError:
        return ast.parse(code).body[0]


def _equal_nodes(function: Function, fault: Fault) -> Iterator[ast.expr | ast.stmt]:
    """Nodes equal to a fault's old code; statements where the new code is a statement."""
    whole = isinstance(_parsed(fault.new), ast.stmt)
    wanted = ast.parse(fault.old).body[0] if whole else _parsed(fault.old)
    for node in ast.walk(function):
        if isinstance(node, (ast.expr, ast.stmt)) and type(node) is type(wanted) and ast.dump(node) == ast.dump(wanted):
            yield node


def _lines_of(function: Function, node: ast.expr | ast.stmt) -> range:
    """Lines of a node's statement, without the body of a compound one."""
    around = [
        statement
        for statement in ast.walk(function)
        if isinstance(statement, ast.stmt) and statement.lineno <= node.lineno and _last(node) <= _last(statement)
    ]
    statement = max(around, key=lambda statement: (statement.lineno, -_last(statement)))
    body = getattr(statement, "body", None)
    last = max(body[0].lineno - 1, statement.lineno) if body else _last(statement)
    return range(statement.lineno, last + 1)


def _last(node: ast.expr | ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _spliced(source: str, node: ast.expr | ast.stmt, new: str) -> str:
    """Source with a node replaced by other code, in parentheses where it is an expression."""
    data = source.encode()  # columns count bytes
    starts = [0, *itertools.accumulate(len(line) for line in data.splitlines(keepends=True))]
    begin = starts[node.lineno - 1] + node.col_offset
    end = starts[_last(node) - 1] + (node.end_col_offset or 0)
    code = f"({new})" if isinstance(node, ast.expr) else new
    return (data[:begin] + code.encode() + data[end:]).decode()
