"""Encodes commands as lines of JSON for the control socket: only known ones, with checked arguments.

A line is `{"command": "set lr", "id": "0123456789ab", "lr": 0.1}`; `set lr`, `scale lr`, `note`
and `change settings` take an argument.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from trainer.host.safe_text import printable
from trainer.run.control import commands as cmd
from trainer.run.control.commands import Command

LONGEST_LINE = 1024  # bytes of a command

_KINDS = (
    cmd.Pause, cmd.Unpause, cmd.SaveCheckpoint, cmd.Evaluate, cmd.Export, cmd.GoBack, cmd.Unfreeze, cmd.Freeze, cmd.FindLr,
    cmd.SetLr, cmd.ScaleLr, cmd.AddNote, cmd.ChangeSettings, cmd.Stop,
)  # fmt: skip
_BY_NAME: dict[str, type[Command]] = {kind.name: kind for kind in _KINDS}
_ID = re.compile(r"[0-9a-f]{12}")


def encode_command(command: Command) -> bytes:
    """Encode a command. Reason and exit code of a signal's `Stop` are omitted: they belong to the process that received it."""
    message: dict[str, Any] = {"command": command.name, "id": command.command_id}
    if isinstance(command, cmd.SetLr):
        message["lr"] = command.lr
    if isinstance(command, cmd.ScaleLr):
        message["factor"] = command.factor
    if isinstance(command, cmd.AddNote):
        message["text"] = command.text
    if isinstance(command, cmd.ChangeSettings):
        message["settings"] = command.settings
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
    if kind is cmd.SetLr:
        return cmd.SetLr(command_id=command_id, lr=_number(message, "set lr", "lr", cmd.HIGHEST_LR))
    if kind is cmd.ScaleLr:
        return cmd.ScaleLr(command_id=command_id, factor=_number(message, "scale lr", "factor", cmd.HIGHEST_FACTOR))
    if kind is cmd.AddNote:
        return cmd.AddNote(command_id=command_id, text=_note(message))
    if kind is cmd.ChangeSettings:
        return cmd.ChangeSettings(command_id=command_id, settings=_settings(message))
    if message:
        raise ValueError(f"{name} takes no arguments")
    return kind(command_id=command_id)


def _number(arguments: dict[str, Any], command: str, name: str, highest: float) -> float:
    number = arguments.get(name)
    if set(arguments) != {name} or isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{command} takes one number: {name}")
    if not 0 < number <= highest:
        raise ValueError(f"{name} must be above 0 and at most {highest:g}")
    return float(number)


def _note(arguments: dict[str, Any]) -> str:
    text = arguments.get("text")
    if set(arguments) != {"text"} or not isinstance(text, str):
        raise ValueError("note takes one text: text")
    if not text.strip() or len(text) > cmd.NOTE_LENGTH or printable(text) != text:
        raise ValueError(f"text must be one line of 1 to {cmd.NOTE_LENGTH} characters")
    return text


def _settings(arguments: dict[str, Any]) -> dict[str, float]:
    """Numbers by key; the trainer checks keys and values."""
    settings = arguments.get("settings")
    if set(arguments) != {"settings"} or not isinstance(settings, dict) or not settings:
        raise ValueError("change settings takes one object: settings")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in settings.values()):
        raise ValueError("settings must be numbers")
    return settings
