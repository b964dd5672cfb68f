"""Checks values from a log against the types that events declare (`run_events`, `result_events`).

A check takes many values at once, so that a million steps are checked as columns. A plain `int` is a whole number from 0
that a float holds exactly, and a plain `float` a number whose square is finite. `Annotated` adds a `Range`, a dict with the
types of some keys, or a function that returns whether a value is valid. A type may itself be such a dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, get_args, get_origin

from trainer.config.field_type import LARGEST_INT

LARGEST_FLOAT = 1e39  # more than float32 holds
LATEST_TIME = 253_402_128_000.0  # Unix seconds in the last days of 9999, valid in every time zone

Check = Callable[[Sequence[Any]], bool]  # whether all values are valid


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both inclusive."""

    low: float = -LARGEST_FLOAT
    high: float = LARGEST_FLOAT


Share = Annotated[float, Range(0, 1 + 1e-6)]  # a fraction from 0 to 1, with a margin for rounding
Amount = Annotated[float, Range(0)]  # a quantity that is not negative, such as seconds
Rate = Annotated[float, Range(5e-324)]  # a learning rate above 0: its logarithm is drawn
Positive = Annotated[int, Range(1, LARGEST_INT)]
UnixTime = Annotated[float, Range(0, LATEST_TIME)]


def check_of(declared: Any) -> Check:
    """Build the check of a type: plain, list, dict by text, types by key, optional or `Annotated`; else TypeError."""
    if isinstance(declared, dict):
        return _entries(declared)
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:])
    if type(None) in arguments:
        (wanted,) = (argument for argument in arguments if argument is not type(None))
        check = check_of(wanted)
        return lambda values: check(values) or check([value for value in values if value is not None])
    if origin is list:
        items = check_of(arguments[0])
        return lambda values: _are(values, list) and items(list(chain.from_iterable(values)))
    if origin is dict:
        items = check_of(arguments[1])
        return lambda values: _are(values, dict) and items([item for value in values for item in value.values()])
    if declared is Any:
        return lambda values: True
    if declared in _PLAIN:
        return _PLAIN[declared]
    raise TypeError(f"{declared} has no check")


def _are(values: Sequence[Any], wanted: type) -> bool:
    """Whether all values are of a type; a bool does not count as an int."""
    return {wanted}.issuperset(map(type, values))


def _numbers(types: set[type], bounds: Range) -> Check:
    def check(values: Sequence[Any]) -> bool:
        if not types.issuperset(map(type, values)):
            return False
        # The norm takes half the time of the largest value, and no value is farther from 0.
        norm = math.hypot(*values)
        if not values or norm <= min(bounds.high, -bounds.low):
            return True
        return bounds.low <= min(values) and (norm <= bounds.high or max(values) <= bounds.high)

    return check


def _annotated(declared: Any, limits: Sequence[Any]) -> Check:
    (limit,) = limits
    if isinstance(limit, Range):
        return _numbers({int, float} if declared is float else {int}, limit)
    check = check_of(declared)
    if isinstance(limit, dict):
        entries = _entries(limit)
        return lambda values: check(values) and entries(values)
    return lambda values: check(values) and all(map(limit, values))


def _entries(types: dict[str, Any]) -> Check:
    checks = {key: check_of(declared) for key, declared in types.items()}
    return lambda values: (
        _are(values, dict)
        and all(check([value[key] for value in values if key in value]) for key, check in checks.items())
    )


_PLAIN: dict[Any, Check] = {
    str: lambda values: _are(values, str),
    bool: lambda values: _are(values, bool),
    int: _numbers({int}, Range(0, LARGEST_INT)),
    float: _numbers({int, float}, Range()),
}
