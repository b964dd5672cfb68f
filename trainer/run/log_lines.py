"""Lines of `events.jsonl`, written and read.

A line is `{"seq": int, "time": unix seconds, "kind": str, ...fields}`. JSON has no NaN: a non-finite number is written as null
and read back as NaN. A run of weeks logs a million lines, so a field that is empty, as it is by default, is left out, and the
numbers of steps stand in one list, `"steps": [first_step, [loss, ...], [accuracy, ...], [lr, ...], images, seconds]`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import orjson

from trainer.run.events import Event, Record, Steps, event_kinds

STEP_FIELDS = ("first_step", "loss", "accuracy", "lr", "images", "seconds")
"""What the list of a `steps` line holds. Logs of version 1 have these as fields by their names."""

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


@functools.cache
def _fields(kind: str) -> dict[str, Any]:
    """Names in the order of the log, each with its default where that is empty, else with `dataclasses.MISSING`."""
    defaults = {}
    for field in sorted(dataclasses.fields(event_kinds()[kind]), key=lambda field: field.name):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        defaults[field.name] = dataclasses.MISSING if default else default
    return defaults


def encode(record: Record) -> bytes:
    """One line of the log, with its newline. Of names that are not UTF-8 the odd bytes are written out."""
    event = record.event
    line = {"seq": record.seq, "time": round(record.time, 3), "kind": event.kind}
    for name, empty in _fields(event.kind).items():
        value = getattr(event, name)
        if type(value) is not type(empty) or value != empty:
            line[name] = value
    if isinstance(event, Steps):
        line[Steps.kind] = [line.pop(name) for name in STEP_FIELDS]
    try:
        return orjson.dumps(line, option=_OPTIONS)
    except TypeError:
        return orjson.dumps(in_utf8(line), option=_OPTIONS)


def in_utf8(value: Any) -> Any:
    """The value with every string fit for UTF-8: file names may hold any bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {in_utf8(key): in_utf8(item) for key, item in value.items()}
    return [in_utf8(item) for item in value] if isinstance(value, (list, tuple)) else value


def decode(line: bytes) -> Record | None:
    """Read one line.

    Returns:
        The record; None for a line that is torn, is no event, or is of a kind that this version does not know.
    """
    try:
        return record_of(orjson.loads(line))
    except orjson.JSONDecodeError:
        return None


def record_of(content: Any) -> Record | None:
    """The record of a line's JSON; None for what is no event, or is of a kind that this version does not know."""
    try:
        cls = event_kinds().get(content["kind"])
        if cls is None:
            return None
        if cls is Steps and Steps.kind in content:
            content = content | dict(zip(STEP_FIELDS, content[Steps.kind], strict=False))
        names = _fields(cls.kind)
        event: Event = cls(**{key: value for key, value in content.items() if key in names})
        return Record(seq=int(content["seq"]), time=float(content["time"]), event=event)
    except (KeyError, TypeError, ValueError):
        return None


def contents(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The JSON objects of many lines, whatever is none left out. In one piece, which is half as much work."""
    try:
        found: list[Any] = orjson.loads(b"[" + b",".join(lines) + b"]")
    except orjson.JSONDecodeError:
        found = []
    if len(found) != len(lines):  # two torn lines may make one whole object between them, which nobody wrote
        found = [_content(line) for line in lines]
    return [content for content in found if type(content) is dict]


def _content(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
