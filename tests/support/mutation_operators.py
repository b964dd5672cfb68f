"""Draws faults from mechanical operators, for `benchmarks.planted_faults`.

Operators change comparisons, signs, constants, `and` and `or`, `not`, minima and maxima and the order of arguments, and delete
statements. They change function bodies, but not strings, messages, type hints and assertions.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import itertools
from collections.abc import Iterator, Mapping

from tests.support.planting import Fault, Function, NotPlacedError, functions_of, place

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
_SIGNS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip
_OPPOSITE = {"min": "max", "max": "min", "amin": "amax", "amax": "amin", "minimum": "maximum", "maximum": "minimum"}
_UNORDERED = {"isinstance", "issubclass", "getattr", "hasattr", "setattr", "cast", *_OPPOSITE}
"""Functions whose arguments are not swapped: that changes nothing, or fails at once."""
_WORDING = {"print", "warn", "warning", "debug", "info", "Warned", "NoteAdded", "printable", "progress"}
"""Calls that only produce messages."""
_COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.AsyncFor, ast.AsyncWith, ast.Try, ast.Match)
_SKIPPED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Raise, ast.Assert)


def draw(sources: Mapping[str, str], *, number: int, seed: int) -> list[Fault]:
    """Draw faults, with each operator about equally often and at most one fault per function.

    They are ranked by a hash of each fault alone, so most of them stay the same when other code changes.
    """
    ranked: dict[str, list[tuple[str, Fault]]] = {}
    for module, source in sources.items():
        for name, function in functions_of(ast.parse(source)):
            for operator, old, new in _mutations(function):
                function_name = f"{module}.{name}"
                rank = hashlib.sha256(f"{seed}|{function_name}|{old}|{new}".encode()).hexdigest()
                name_of_fault = f"{operator}-{function_name.partition('.')[2]}"
                ranked.setdefault(operator, []).append((rank, Fault(name_of_fault, function_name, old, new)))
    queues = [sorted(entries, key=lambda entry: entry[0]) for _, entries in sorted(ranked.items())]
    chosen: dict[str, Fault] = {}
    for fault in [entry[1] for turn in itertools.zip_longest(*queues) for entry in turn if entry is not None]:
        if len(chosen) < number and fault.function not in chosen and _fits(fault, sources):
            chosen[fault.function] = fault
    return list(chosen.values())


def _fits(fault: Fault, sources: Mapping[str, str]) -> bool:
    module = next(name for name in sources if fault.function.startswith(f"{name}."))
    try:
        place(fault, {module: sources[module]})
    except NotPlacedError:
        return False  # the same code is in the function twice
    return True


def _mutations(function: Function) -> Iterator[tuple[str, str, str]]:
    """All changes of a function: the operator's name, a piece of code, and the changed piece."""
    if function.name in ("__str__", "__repr__"):
        return
    for unit in _units(function.body):
        if function.name != "__init__" and _is_deletable(unit):
            yield "deleted", ast.unparse(unit), "pass"
        for node in _parts(unit):
            for operator, changed in _changes(node):
                # The memo makes a copy in which only this node is replaced.
                yield operator, ast.unparse(unit), ast.unparse(copy.deepcopy(unit, {id(node): changed}))


def _units(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Simple statements, and the expressions in the headers of compound ones."""
    for statement in body:
        children = list(ast.iter_child_nodes(statement))
        if isinstance(statement, _COMPOUND):
            yield from (child for child in children if isinstance(child, ast.expr))
            yield from (child.context_expr for child in children if isinstance(child, ast.withitem))
            yield from _units([child for child in children if isinstance(child, ast.stmt)])
            for child in children:
                yield from _units(child.body if isinstance(child, (ast.ExceptHandler, ast.match_case)) else [])
        elif not isinstance(statement, _SKIPPED):
            yield statement


def _is_deletable(unit: ast.AST) -> bool:
    """Whether a statement sets an attribute or makes a call that does more than produce a message."""
    if isinstance(unit, ast.Expr):
        return isinstance(unit.value, ast.Call) and _called(unit.value) not in _WORDING
    targets = unit.targets if isinstance(unit, ast.Assign) else [getattr(unit, "target", None)]
    return isinstance(unit, ast.stmt) and any(isinstance(target, ast.Attribute) for target in targets)


def _called(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """A node and its descendants, without messages and type hints."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            wording = isinstance(child, ast.Call) and (_called(child) in _WORDING or _called(child).endswith("Error"))
            if isinstance(child, ast.AST) and not (name == "annotation" or wording or isinstance(child, ast.JoinedStr)):
                yield from _parts(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(left, [sign], others):
            yield from (("comparison", ast.Compare(left, [new()], others)) for new in _COMPARISONS[type(sign)])
        case ast.BinOp(left, sign, right) if type(sign) in _SIGNS and not _is_text(left) and not _is_text(right):
            yield "sign", ast.BinOp(left, _SIGNS[type(sign)](), right)
        case ast.AugAssign(target, sign, value) if type(sign) in _SIGNS and not _is_text(value):
            yield "sign", ast.AugAssign(target, _SIGNS[type(sign)](), value)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield "not" if isinstance(node.op, ast.Not) else "sign", operand
        case ast.BoolOp(sign, values):
            yield "logic", ast.BoolOp(ast.Or() if isinstance(sign, ast.And) else ast.And(), values)
        case ast.Constant(bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield from (("constant", ast.Constant(new)) for new in {value + 1, value - 1, value * 2} - {value})
        case ast.Call(function, arguments, keywords):
            if (name := _OPPOSITE.get(_called(node), "")) and isinstance(function, (ast.Name, ast.Attribute)):
                other = copy.copy(function)
                setattr(other, "id" if isinstance(other, ast.Name) else "attr", name)
                yield "extreme", ast.Call(other, arguments, keywords)
            if len(arguments) > 1 and _called(node) not in _UNORDERED and not isinstance(arguments[0], ast.Starred):
                yield "swapped", ast.Call(function, [arguments[1], arguments[0], *arguments[2:]], keywords)


def _is_text(node: ast.AST) -> bool:
    """Whether a node is certainly not a number."""
    return isinstance(node, (ast.JoinedStr, ast.List, ast.Tuple)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
