"""Loads a validated `Config` from a file and `key=value` overrides, with messages that name file, line and key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainer.config.field_type import FieldType, field_type
from trainer.config.schema import Config
from trainer.config.yaml_reader import Lines, read_list, read_mapping, read_scalar, write_yaml
from trainer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LoadedConfig:
    """A configuration and its source."""

    config: Config
    source: str  # path of the file, as messages name it
    shipped: bool  # with the program, rather than written by the user


def shipped_configs_dir() -> Path:
    """Folder of shipped configurations: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_names() -> list[str]:
    """Names of the shipped configurations, sorted."""
    return sorted(path.stem for path in shipped_configs_dir().glob("*.yaml"))


def find_config(name: str) -> tuple[Path, bool]:
    """The file of a path, else of the shipped `NAME` or `configs/NAME.yaml`; whether it is shipped. ConfigError without one."""
    path = Path(name)
    if path.is_file():
        return path, False
    if path.is_dir():
        raise ConfigError(f"{name}: expected a configuration file, found a folder")
    if path.parent in (Path(), Path("configs")) and path.suffix in ("", ".yaml"):
        shipped = shipped_configs_dir() / f"{path.stem}.yaml"
        if shipped.is_file():
            return shipped, True
    names = shipped_names()
    near = difflib.get_close_matches(path.stem, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"{name}: no such file; {hint}Shipped configurations: {', '.join(names)}")


def load_config(name: str, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Find, read, override and validate a configuration; ConfigError lists all problems, one per line."""
    path, shipped = find_config(name)
    source = f"configs/{path.name}" if shipped else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from error
    values, lines = read_mapping(text, source=source)
    return LoadedConfig(config=build_config(values, lines, source, overrides), source=source, shipped=shipped)


def build_config(values: dict[str, Any], lines: Lines, source: str, overrides: Sequence[str] = ()) -> Config:
    """Apply `group.key=value` overrides to plain data and validate it; ConfigError lists all problems, one per line.

    Messages name `source` and the line of each dotted key of `values`.
    """
    places = {"": source} | {key: f"{source}:{line}" for key, line in lines.items()}
    for key, value in parse_overrides(overrides):
        put_setting(values, key, value)
        places[key] = "command line"
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_message(problem, places) for problem in error.errors())) from None


def parse_overrides(tokens: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Split `group.key=value` tokens into dotted keys and values, read according to each field's type.

    Text is taken literally. A list is `a,b` or `[a, b]`. Numbers, `true` and `false` follow YAML 1.2's core rules.
    ConfigError when a token has no key, or its value is no list where one is expected.
    """
    known = known_keys()
    for token in tokens:
        key, equals, text = token.partition("=")
        if not equals or not key or "." not in key:
            hint = _suggest(key)
            raise ConfigError(
                f"{token}: expected group.key=value, such as train.epochs=20{'; ' + hint if hint else ''}"
            )
        yield key, _read_value(text, type_of(key), token) if key in known else text


def _read_value(text: str, kind: FieldType, token: str) -> Any:
    if kind.is_text or text in kind.choices:
        return text
    if kind.items is not None:
        return read_list(text, source=token)
    return read_scalar(text)


def to_yaml(config: Config) -> str:
    """Format the whole configuration as YAML that reads back to an equal `Config`."""
    return write_yaml(config.model_dump(mode="json"))


def known_keys() -> dict[str, type[BaseModel]]:
    """Every dotted key, with the group that owns it."""
    return {f"{name}.{key}": group for name, group in _groups().items() for key in group.model_fields}


def type_of(key: str) -> FieldType:
    """Values that a key of `known_keys` accepts."""
    return field_type(known_keys()[key].model_fields[key.partition(".")[2]].annotation)


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, each with the old and the new value."""
    before, after = old.model_dump(), new.model_dump()
    return {
        f"{group}.{key}": (before[group][key], after[group][key])
        for group in before
        for key in before[group]
        if before[group][key] != after[group][key]
    }


def _groups() -> dict[str, type[BaseModel]]:
    return {name: field.annotation for name, field in Config.model_fields.items() if isinstance(field.annotation, type)}


def put_setting(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key in nested groups, which are created where they are missing."""
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            values[parent] = child = {}
        values = child
    values[last] = value


def _suggest(key: str) -> str:
    keys = list(known_keys())
    by_last: dict[str, list[str]] = {}
    for known in keys:
        by_last.setdefault(known.partition(".")[2], []).append(known)
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    if not near:
        names = difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)
        near = by_last[names[0]] if names else difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if not near:
        near = [known for known in keys if last and last in known][:1]
    return f"did you mean {' or '.join(near)}?" if near else ""


def _message(problem: ErrorDetails, places: Mapping[str, str]) -> str:
    """Explain a problem; `places` are those of dotted keys, and of the whole configuration."""
    parts = [
        str(part) for part in problem["loc"] if isinstance(part, str) and not part.startswith(("printable[", "list["))
    ]
    key = ".".join(parts[:2])
    place = next(places[known] for known in (key, *parts[:1], "") if known in places)
    where = f"{place}: {key}" if key else place
    kind, seen = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        if len(parts) == 1:
            return f"{where}: unknown group; expected one of {', '.join(_groups())}"
        hint = _suggest(key)
        return f"{where}: unknown key{'; ' + hint if hint else ''}"
    if kind == "value_error":
        return f"{where}: {str(problem['msg']).removeprefix('Value error, ')}" + _found(seen)
    if kind in ("model_type", "model_attributes_type"):
        return f"{where}: expected keys under this group, found {seen!r}"
    return f"{where}: {_expected(key, problem)}{_found(seen)}"


def _found(seen: Any) -> str:
    return "" if isinstance(seen, (Mapping, BaseModel)) else f"; found {seen!r}"


def _expected(key: str, problem: ErrorDetails) -> str:
    if key in known_keys():
        kind = type_of(key)
        plain = kind.plain or (kind.items.plain if kind.items else ())
        if kind.choices or (kind.items and kind.items.choices) or (plain and str(problem["type"]).endswith("_type")):
            listed = "a list of " if kind.items and not kind.plain else ""
            return f"expected {listed}" + " or ".join([*kind.words, *(part.__name__ for part in plain)])
    return str(problem["msg"])[0].lower() + str(problem["msg"])[1:]
