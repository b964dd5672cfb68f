"""Encodes commands as lines of JSON for the control socket: only known ones, with checked arguments.

A line is `{"command": "set lr", "id": "0123456789ab", "lr": 0.1}`; `set lr`, `scale lr`, `note`
and `change settings` take an argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from trainer.host.safe_text import printable
from trainer.run.control import commands as cmd
from trainer.run.control.commands import Command

LONGEST_LINE = 1024  # bytes of a command

_BY_NAME: dict[str, type[Command]] = {kind.name: kind for kind in Command.__subclasses__()}
_ID = re.compile(r"[0-9a-f]{12}")


def encode_command(command: Command) -> bytes:
    """Encode a command. Reason and exit code of a signal's `Stop` are omitted: they belong to the process that received it."""
    message: dict[str, Any] = {"command": command.name, "id": command.command_id}
    if type(command) in _ARGUMENTS:
        name, _ = _ARGUMENTS[type(command)]
        message[name] = getattr(command, name)
    return orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)


def decode_command(line: bytes) -> Command:
    """Decode a line from an untrusted sender; ValueError unless it is exactly a known command with valid arguments."""
    if len(line) > LONGEST_LINE:
        raise ValueError(f"a command has at most {LONGEST_LINE} bytes")
    message = orjson.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a command must be a JSON object")
    name, command_id = message.pop("command", None), message.pop("id", None)
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown command; known commands: {', '.join(_BY_NAME)}")
    if not isinstance(command_id, str) or not _ID.fullmatch(command_id):
        raise ValueError("id must be twelve hexadecimal digits")
    return kind(command_id=command_id, **_arguments(kind, message))


def _arguments(kind: type[Command], message: dict[str, Any]) -> dict[str, Any]:
    """The checked argument of a command by its name; empty for a command that takes none."""
    if kind not in _ARGUMENTS:
        if message:
            raise ValueError(f"{kind.name} takes no arguments")
        return {}
    name, check = _ARGUMENTS[kind]
    return {name: check(message[name] if set(message) == {name} else None)}  # no check accepts None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any, command: str, name: str, highest: float) -> float:
    if not _is_number(value):
        raise ValueError(f"{command} takes one number: {name}")
    if not 0 < value <= highest:
        raise ValueError(f"{name} must be above 0 and at most {highest:g}")
    return float(value)


def _note(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError("note takes one text: text")
    if not text.strip() or len(text) > cmd.NOTE_LENGTH or printable(text) != text:
        raise ValueError(f"text must be one line of 1 to {cmd.NOTE_LENGTH} characters")
    return text


def _settings(settings: Any) -> dict[str, float]:
    """Numbers by key; the trainer checks keys and values."""
    if not isinstance(settings, dict) or not settings:
        raise ValueError("change settings takes one object: settings")
    if not all(map(_is_number, settings.values())):
        raise ValueError("settings must be numbers")
    return settings


_ARGUMENTS: dict[type[Command], tuple[str, Callable[[Any], Any]]] = {
    cmd.SetLr: ("lr", partial(_number, command="set lr", name="lr", highest=cmd.HIGHEST_LR)),
    cmd.ScaleLr: ("factor", partial(_number, command="scale lr", name="factor", highest=cmd.HIGHEST_FACTOR)),
    cmd.AddNote: ("text", _note),
    cmd.ChangeSettings: ("settings", _settings),
}
"""Name and check of the argument of each command that takes one. A check returns the value, or raises ValueError."""
