"""Settings as typed text: the content of the fields, and the configuration that results from edits. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from trainer.config.loader import LoadedConfig, load_config, to_yaml
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.host.safe_text import printable

MAIN_SETTINGS = (
    "run.name", "data.root", "train.epochs", "data.batch_size", "optim.name", "optim.lr", "optim.weight_decay", "schedule.name",
    "train.label_smoothing", "model.dropout", "data.val_fraction", "data.flip", "data.crop_pad", "data.cutout", "data.mixup",
    "eval.every_epochs", "eval.tta", "run.seed", "run.device", "run.precision",
)  # fmt: skip
"""The settings that people change most, in the order of the form."""


def main_settings(config: Config) -> dict[str, str]:
    """The main settings of a configuration, as text that is read back to the same values."""
    values = config.model_dump(mode="json")
    wanted = [key for key in MAIN_SETTINGS if key != "data.root" or config.data.kind != "digits"]
    return {key: typed(values[key.partition(".")[0]][key.partition(".")[2]]) for key in wanted}


def typed(value: Any) -> str:
    """Format a value so that `parse_overrides` reads it back. Control characters in text are shown as `?`."""
    if value is None:
        return "none"
    return printable(value) if isinstance(value, str) else json.dumps(value)


def resolve(source: str, overrides: Mapping[str, str]) -> tuple[LoadedConfig | None, dict[str, str]]:
    """Resolve a configuration with some settings retyped; if that fails, None with the errors by key, empty for the rest."""
    tokens = [f"{key}={text}" for key, text in overrides.items()]
    try:
        return load_config(source, tokens), {}
    except ConfigError as error:
        problems: dict[str, str] = {}
        for line in str(error).split("\n"):
            text = line.removeprefix("command line: ")
            key = next((key for key in overrides if text.startswith((f"{key}:", f"{key}="))), "")
            problems.setdefault(key, text.removeprefix(f"{key}: ") if key else text)
        return None, problems


def command_of(source: str, overrides: Mapping[str, str]) -> list[str]:
    """The arguments of `r18-tui` that train this configuration."""
    return [source, *(f"{key}={text}" for key, text in overrides.items())]


def shown_command(source: str, overrides: Mapping[str, str]) -> str:
    """The same command as a person would type it."""
    return shlex.join(["r18-tui", *command_of(source, overrides)])


def whole_yaml(config: Config) -> str:
    """The whole configuration as a file, with a line that states its origin."""
    return f"# Written by r18-tui. docs/configuration.md explains every key.\n{to_yaml(config)}"
