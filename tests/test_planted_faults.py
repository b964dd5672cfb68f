"""Planted faults end up in the right place, and each operator makes the change that its name says."""

from __future__ import annotations

import ast

import pytest

from tests.support.mutation_operators import draw
from tests.support.planting import Fault, NotPlacedError, place

SOURCE = '''
class Gate:
    """A gate."""

    def passes(self, values: list[float]) -> bool:
        """Whether all é values are small, 1 < 2."""
        self.seen = len(values)  # é
        if (
            not values and 1 < 2
        ):
            return False
        return max(values) < self.limit


def outer() -> int:
    def inner() -> int:
        return 1 + 2

    return inner()
'''


def placed(old: str, new: str, function: str = "package.gate.Gate.passes", **sources: str) -> str:
    """The lines that a fault changes."""
    planted = place(Fault("name", function, old, new), {"package.gate": SOURCE} | sources)
    ast.parse(planted.source)
    original = ({"package.gate": SOURCE} | sources)[planted.module].splitlines()
    changed = planted.source.splitlines()
    assert len(changed) == len(original)
    return "\n".join(new for old, new in zip(original, changed, strict=True) if old != new).strip()


def test_an_expression_is_replaced_in_parentheses() -> None:
    assert placed("max( values )<self.limit", "True") == "return (True)"


def test_a_statement_is_replaced_and_its_comment_stays() -> None:
    assert placed("self.seen=len(values)", "pass") == "pass  # é"


def test_strings_are_not_code() -> None:
    assert placed("1 < 2", "1 <= 2") == "not values and (1 <= 2)"


def test_the_lines_of_a_fault_are_its_statement_without_the_body() -> None:
    assert place(Fault("", "m.Gate.passes", "not values", "values"), {"m": SOURCE}).lines == range(8, 11)
    assert place(Fault("", "m.Gate.passes", "max(values)", "0"), {"m": SOURCE}).lines == range(12, 13)


def test_a_moved_function_is_found() -> None:
    assert placed("1 + 2", "1 - 2", "package.elsewhere.inner") == "return (1 - 2)"


def test_the_named_module_comes_before_others_with_that_function() -> None:
    other = "class Wall:\n    def passes(self):\n        return max(values) < self.limit\n"
    fault = Fault("", "package.wall.Wall.passes", "max(values) < self.limit", "True")
    assert place(fault, {"package.gate": SOURCE, "package.wall": other}).module == "package.wall"


@pytest.mark.parametrize(
    ("old", "function"),
    [
        ("max(values) > self.limit", "package.gate.Gate.passes"),
        ("max(values) < self.limit", "package.gate.Gate.opens"),
        ("values", "package.gate.Gate.passes"),
    ],
    ids=["other code", "other function", "several times"],
)
def test_code_that_does_not_occur_exactly_once_is_refused(old: str, function: str) -> None:
    with pytest.raises(NotPlacedError):
        placed(old, "True", function)


def drawn(statement: str, number: int = 1000) -> dict[str, set[str]]:
    """The changes of a statement by operator, drawn with many seeds since each draw has one fault per function."""
    source = "def f(self, a, b, c):\n    " + statement.replace("\n", "\n    ") + "\n"
    changes: dict[str, set[str]] = {}
    for seed in range(200):
        for fault in draw({"m": source}, number=number, seed=seed):
            changes.setdefault(fault.name.partition("-")[0], set()).add(fault.new)
    return changes


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("return a < b", {"comparison": {"return a <= b", "return a > b"}}),
        ("return a is None", {"comparison": {"return a is not None"}}),
        ("return a - -b", {"sign": {"return a + -b", "return a - b"}}),
        ("a *= b", {"sign": {"a /= b"}}),
        ("return a[3]", {"constant": {"return a[4]", "return a[2]", "return a[6]"}}),
        ("return True", {"constant": {"return False"}}),
        ("return a and b", {"logic": {"return a or b"}}),
        ("if not a:\n    return b", {"not": {"a"}}),
        ("return a.amin(b)", {"extreme": {"return a.amax(b)"}}),
        ("return c(a, b)", {"swapped": {"return c(b, a)"}}),
        ("self.x = a", {"deleted": {"pass"}}),
        ("with a:\n    b.go()", {"deleted": {"pass"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_operator_makes_its_changes(statement: str, changes: dict[str, set[str]]) -> None:
    assert drawn(statement) == changes


@pytest.mark.parametrize(
    "statement",
    [
        '"1 < 2"', 'return f"{a < 1}"', "x: a[1] = b", "assert a < 1", "raise b(a - 1)", "print(a - 1)", "return 'a' + b",
        "return isinstance(a, b)", "def g(a=1): pass", "error = ValueError(a < b)",
    ],
)  # fmt: skip
def test_strings_type_hints_and_messages_stay(statement: str) -> None:
    assert drawn(statement) == {}


def test_a_draw_depends_on_the_seed_and_hardly_on_edits() -> None:
    functions = [f"def f{number}(a, b):\n    return a[{number}] < b\n" for number in range(40)]
    first = draw({"m": "".join(functions)}, number=20, seed=1)
    assert first == draw({"m": "".join(functions)}, number=20, seed=1)
    assert {fault.function for fault in first} != {
        fault.function for fault in draw({"m": "".join(functions)}, number=20, seed=2)
    }
    assert len({fault.function for fault in first}) == 20
    edited = draw({"m": "".join(functions[1:])}, number=20, seed=1)
    assert len(set(first) & set(edited)) >= 18
