"""A checked configuration as plain data.

It is passed between processes, and code that runs before the first frame reads it without importing the validation library,
which takes a third of the time to the first frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config.schema import Config


@dataclass(frozen=True)
class PlainConfig:
    """Contents of a `Config` in JSON types. Created by `of`.

    Attributes:
        values: Keys of each group.
        yaml: The same as YAML, as kept in the run directory.
    """

    values: dict[str, dict[str, Any]]
    yaml: str

    @classmethod
    def of(cls, config: Config) -> PlainConfig:
        """Convert a configuration to plain data."""
        from trainer.config.loader import to_yaml

        return cls(config.model_dump(mode="json"), to_yaml(config))

    @cached_property
    def typed(self) -> Config:
        """Convert back to a `Config`, with validation.

        Raises:
            ConfigError: When the values are not a valid configuration.
        """
        from trainer.config.loader import build_config

        return build_config(self.values, {}, "the checked configuration")
