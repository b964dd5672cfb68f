"""Encodes and decodes the lines of `events.jsonl`.

A line is `{"seq": int, "time": unix seconds, "kind": str, ...fields}`. JSON has no NaN: a non-finite number is written as null
and read back as NaN. A run of weeks logs a million lines, so a field that has its empty default is omitted, and the
numbers of steps are in one list, `"steps": [first_step, [loss, ...], [accuracy, ...], [lr, ...], images, seconds]`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, get_type_hints

import orjson

from trainer.run.log import result_events, run_events
from trainer.run.log.event import Event, Record
from trainer.run.log.log_types import Check, check_of
from trainer.run.log.result_events import Steps

STEP_FIELDS = ("first_step", "loss", "accuracy", "lr", "images", "seconds")  # named fields in logs of version 1
LINES_PER_CHUNK = 512  # lines decoded at a time: as many as fit in a processor's cache
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


@functools.cache
def event_kinds() -> dict[str, type[Event]]:
    """Every kind of event by its name in the log."""
    defined = (value for module in (run_events, result_events) for value in vars(module).values())
    return {cls.kind: cls for cls in defined if isinstance(cls, type) and issubclass(cls, Event) and cls is not Event}


@functools.cache
def _fields(kind: str) -> dict[str, Any]:
    """Field names in the order of the log, each with its default if that is empty, else with `dataclasses.MISSING`."""
    defaults = {}
    for field in sorted(dataclasses.fields(event_kinds()[kind]), key=lambda field: field.name):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        defaults[field.name] = dataclasses.MISSING if default else default
    return defaults


def encode(record: Record) -> bytes:
    """One line of the log, with its newline. Bytes of names that are not UTF-8 are escaped."""
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
        return orjson.dumps(escape_invalid_utf8(line), option=_OPTIONS)


def escape_invalid_utf8(value: Any) -> Any:
    """The value with every string made valid UTF-8: file names may hold any bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {escape_invalid_utf8(key): escape_invalid_utf8(item) for key, item in value.items()}
    return [escape_invalid_utf8(item) for item in value] if isinstance(value, (list, tuple)) else value


def decode(line: bytes) -> Record | None:
    """Decode one line; None if it is unreadable or of a kind unknown to this version."""
    records, _ = records_of(parse_lines([line]))
    return records[0] if records else None


def read_lines(lines: Sequence[bytes]) -> tuple[list[Record], int]:
    """Decode lines; returns their records, and the number of lines skipped."""
    found = parse_lines(lines)
    records, bad = records_of(found)
    return records, bad + num_unreadable(lines, found)


def num_unreadable(lines: Sequence[bytes], found: Sequence[dict[str, Any]]) -> int:
    """Number of non-empty lines that have no JSON object in `parse_lines(lines)`."""
    return 0 if len(lines) == len(found) else sum(bool(line.strip()) for line in lines) - len(found)


def is_known(content: Mapping[str, Any]) -> bool:
    """Whether this version may know the kind of a line. Kinds of later versions are skipped and not counted."""
    kind = content.get("kind")
    return type(kind) is not str or kind in event_kinds()


def records_of(found: Sequence[dict[str, Any]]) -> tuple[list[Record], int]:
    """Records from the JSON of lines, and the number skipped because a value is missing or not of its declared type."""
    known = [content for content in found if is_known(content)]
    records = [record for content in known if (record := _record_of(content)) is not None]
    of_kind: dict[type[Event], list[Record]] = {}
    for record in records:
        of_kind.setdefault(type(record.event), []).append(record)
    if not all(_are_valid(of_one) for of_one in of_kind.values()):
        records = [record for record in records if _are_valid([record])]
    return records, len(known) - len(records)


def _record_of(content: dict[str, Any]) -> Record | None:
    """The record of a line's JSON, its values still unchecked; None if a field is missing."""
    cls = event_kinds().get(kind) if type(kind := content.get("kind")) is str else None
    if cls is None or "seq" not in content or "time" not in content:
        return None
    if cls is Steps and type(numbers := content.get(Steps.kind)) is list:
        content = content | dict(zip(STEP_FIELDS, numbers, strict=False))
    names = _fields(cls.kind)
    try:
        event: Event = cls(**{key: value for key, value in content.items() if key in names})
    except TypeError:
        return None
    return Record(seq=content["seq"], time=content["time"], event=event)


@functools.cache
def checks_of(cls: type) -> dict[str, Check]:
    """The check of each field by name, of an event or of `Record`."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: check_of(hints[field.name]) for field in dataclasses.fields(cls) if field.name != "event"}


def _are_valid(records: Sequence[Record]) -> bool:
    """Whether all values of records of one kind are of their declared types."""
    events = [record.event for record in records]
    cls = type(events[0])
    return (
        _fit(Record, records)
        and _fit(cls, events)
        and _have_same_lengths(cls, events)
        and (cls.is_consistent is Event.is_consistent or all(event.is_consistent() for event in events))
    )


def _fit(cls: type, instances: Sequence[Any]) -> bool:
    return all(check(list(map(attrgetter(name), instances))) for name, check in checks_of(cls).items())


def _have_same_lengths(cls: type[Event], events: Sequence[Event]) -> bool:
    if not cls.same_length:
        return True
    first, *others = ([len(getattr(event, name)) for event in events] for name in cls.same_length)
    return all(
        lengths == first
        or (
            _fields(cls.kind)[name] == []
            and all(length in (0, wanted) for length, wanted in zip(lengths, first, strict=True))
        )
        for name, lengths in zip(cls.same_length[1:], others, strict=True)
    )


def parse_lines(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The JSON objects of many lines, without lines that have none. Parsed in one piece, which halves the time."""
    try:
        found: list[Any] = orjson.loads(b"[" + b",".join(lines) + b"]")
    except orjson.JSONDecodeError:
        found = []
    if len(found) != len(lines):  # two torn lines may form one whole object that was never written
        found = [_content(line) for line in lines]
    return found if set(map(type, found)) == {dict} else [content for content in found if type(content) is dict]


def _content(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
