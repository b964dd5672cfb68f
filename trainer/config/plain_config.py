"""A checked configuration as plain data: readable without pydantic, whose import takes a third of the time to the first frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config.schema import Config


@dataclass(frozen=True)
class PlainConfig:
    """Contents of a `Config` in JSON types, for other processes and before the first frame. Created by `of`."""

    values: dict[str, dict[str, Any]]  # by group and key
    yaml: str  # the same, as kept in the run directory

    @classmethod
    def of(cls, config: Config) -> PlainConfig:
        """Convert a configuration to plain data."""
        from trainer.config.loader import to_yaml

        return cls(config.model_dump(mode="json"), to_yaml(config))

    @cached_property
    def typed(self) -> Config:
        """Convert back to a `Config`; ConfigError when the values are not valid."""
        from trainer.config.loader import build_config

        return build_config(self.values, {}, "the checked configuration")
