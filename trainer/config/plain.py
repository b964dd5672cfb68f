"""A checked configuration as plain data.

It passes between processes, and what comes before the first frame is read from it without importing the library that
validates: that takes a third of the way to the first frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config.schema import Config


@dataclass(frozen=True)
class PlainConfig:
    """What `Config` holds, in types that JSON knows. `of` makes it.

    Attributes:
        values: Keys of each group.
        yaml: The same as the run directory keeps it.
    """

    values: dict[str, dict[str, Any]]
    yaml: str

    @classmethod
    def of(cls, config: Config) -> PlainConfig:
        """A configuration as plain data."""
        from trainer.config.loader import to_yaml

        return cls(config.model_dump(mode="json"), to_yaml(config))

    @cached_property
    def typed(self) -> Config:
        """The configuration itself, validated once more.

        Raises:
            ConfigError: When the values are not those of a configuration.
        """
        from trainer.config.loader import build_config

        return build_config(self.values, {}, "the checked configuration")
