"""Reads and writes YAML files and values under YAML 1.2's core rules, with the line of every key.

PyYAML follows YAML 1.1, where `1e-3` is a string, `off` is False and `1:30` is 90. Here `1e-3` is a number and `off`,
`no` and `1:30` stay strings. Only plain data are built (no tags, no objects), duplicate keys are refused with both
lines, and anchors are refused because a few of them can expand to gigabytes.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from trainer.errors import ConfigError

Lines = dict[str, int]  # dotted key to line number, from 1


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader whose plain scalars follow the core schema of YAML 1.2.2, section 10.3."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


_CORE_SCHEMA = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
)
for _tag, _pattern, _first in _CORE_SCHEMA:
    _CoreLoader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _construct_int(loader: _CoreLoader, node: yaml.ScalarNode) -> int:
    """Whole numbers of YAML 1.2: `010` is ten, `0o10` eight, and nothing is sexagesimal."""
    text = str(node.value)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


_CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_mapping(text: str, *, source: str) -> tuple[dict[str, Any], Lines]:
    """Parse a YAML document into plain data and the line of every dotted key; ConfigError unless it is a plain mapping."""
    lines: Lines = {}
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from error
    if node is None:
        return {}, lines
    if not isinstance(node, yaml.MappingNode):
        found = "list" if isinstance(node, yaml.SequenceNode) else "single value"
        raise ConfigError(f"{source}: expected `group:` sections with keys under them, found a {found}")
    value = _Builder(source, lines).build(node, "")
    assert isinstance(value, dict)
    return value, lines


def read_scalar(text: str) -> Any:
    """Read the number, bool, None or text that an unquoted YAML value means. A `#` or a quote is ordinary text."""
    if not text:
        return text  # in a file it is None; in `key=$VALUE` it is a mistake
    loader: Any = _CoreLoader("")
    try:
        return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))
    except ValueError:
        return text  # an integer with more digits than Python reads


def read_list(text: str, *, source: str) -> list[Any]:
    """Parse `[100, 150]`, `100,150` or a single item; ConfigError when it is no list or something follows it."""
    bracketed = text if text.lstrip().startswith("[") else f"[{text}]"
    try:
        node = yaml.compose(bracketed, Loader=_CoreLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode) or bracketed[node.end_mark.index :].strip():
        raise ConfigError(f"{source}: expected a list such as [1, 2], found {text!r}")
    value = _Builder(source, {}).build(node, "")
    assert isinstance(value, list)
    return value


class _CoreDumper(yaml.SafeDumper):
    """SafeDumper that quotes text that YAML 1.1 or YAML 1.2's core schema would read as something else."""


for _tag, _pattern, _first in _CORE_SCHEMA:
    _CoreDumper.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def write_yaml(value: dict[str, Any]) -> str:
    """Format groups of keys as a YAML document, one group per line."""
    return yaml.dump(value, Dumper=_CoreDumper, sort_keys=False, default_flow_style=None, width=120)


def write_scalar(value: Any) -> str:
    """Format a value as YAML on one line that `read_mapping` reads back equal."""

    def dumped(style: str | None) -> str:
        text = yaml.dump(
            value, Dumper=_CoreDumper, default_style=style, default_flow_style=True, width=math.inf,
            allow_unicode=not isinstance(value, str) or value.isprintable(),
        )  # fmt: skip
        return text.removesuffix("...\n").removesuffix("\n")

    plain = dumped(None)
    # In single quotes a line break of the text would be a line break of the document.
    return dumped('"') if isinstance(value, str) and plain != value else plain


class _Builder:
    """Builds plain data from a node tree, records lines and rejects what a configuration must not contain."""

    def __init__(self, source: str, lines: Lines) -> None:
        self._source = source
        self._lines = lines
        self._seen: set[int] = set()
        self._scalars = _CoreLoader("")

    def build(self, node: yaml.Node, path: str) -> Any:
        line = node.start_mark.line + 1
        if id(node) in self._seen:
            raise ConfigError(f"{self._source}:{line}: {path}: YAML anchors are not supported; write the value out")
        self._seen.add(id(node))
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
            raise ConfigError(f"{self._source}:{line}: {path}: tags are not supported: {node.tag}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{self._source}:{line}: {path}: unsupported value or tag: {node.value!r}") from error

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = str(key_node.value)
            dotted = f"{path}.{key}" if path else key
            if key in result:
                first = self._lines[dotted]
                raise ConfigError(f"{self._source}:{line}: {dotted}: duplicate key; it is already on line {first}")
            self._lines[dotted] = line
            result[key] = self.build(value_node, dotted)
        return result
