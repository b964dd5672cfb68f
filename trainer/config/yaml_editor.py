"""Changes one value in a YAML file and nothing else: comments, order and spelling stay."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from trainer.config.yaml_reader import read_mapping
from trainer.errors import ConfigError
from trainer.host.atomic_files import set_mode, write_atomically


def write_value(path: Path, key: str, value: float) -> None:
    """Write a number as `group.name` into a file; ConfigError when that would change anything else, or fails."""
    try:
        text = path.read_bytes().decode("utf-8")
        changed = with_value(text, key, value, source=str(path))
        target, mode = path.resolve(), path.stat().st_mode
        write_atomically(target, changed.encode())
        set_mode(target, mode & 0o777)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {key} cannot be written: {error}") from error


def with_value(text: str, key: str, value: float, *, source: str) -> str:
    """Set `group.name` to a number in a YAML document; ConfigError when the result would differ in anything else."""
    wanted, _ = read_mapping(text, source=source)
    group, _, name = key.partition(".")
    section = wanted.setdefault(group, {})
    changed = _changed(text, group, name, f"{value:g}")
    found: dict[str, Any] | None = None
    if isinstance(section, dict):
        section[name] = float(f"{value:g}")
        with contextlib.suppress(ConfigError):
            found, _ = read_mapping(changed, source=source)
    if found != wanted:
        raise ConfigError(f"{source}: the program cannot change this file safely; edit it and set {key}: {value:g}")
    return changed


def _changed(text: str, group: str, name: str, value: str) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    newline = "\r\n" if "\r\n" in text else "\n"
    section = _find(root, group)
    if section is None:
        ended = text if not text or text.endswith("\n") else text + newline
        return f"{ended}{group}:{newline}  {name}: {value}{newline}"
    there = _find(section, name)
    if there is not None:
        return text[: there.start_mark.index] + value + text[there.end_mark.index :]
    if not isinstance(section, yaml.MappingNode) or not section.value:
        return text
    first = section.value[0][0].start_mark
    if section.flow_style:
        return f"{text[: first.index]}{name}: {value}, {text[first.index :]}"
    return f"{text[: first.index]}{name}: {value}{newline}{' ' * first.column}{text[first.index :]}"


def _find(node: yaml.Node | None, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)
