"""Another plan for a run while it goes on: how long, how often it is measured and saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.config.loader import build_config
from trainer.config.schema import CHANGEABLE, Config
from trainer.errors import ConfigError
from trainer.training.loop import Trainer


def changed_config(config: Config, settings: Mapping[str, float], trainer: Trainer) -> Config:
    """A configuration with some other settings.

    Args:
        config: Of the run.
        settings: By dotted key.
        trainer: Between two steps, or two batches of an evaluation.

    Raises:
        ConfigError: When a setting cannot be changed, has no such value, or ends the run before the epoch under way.
    """
    refused = [key for key in settings if key not in CHANGEABLE]
    if refused:
        raise ConfigError(f"{refused[0]} cannot be changed while a run goes on; {', '.join(CHANGEABLE)} can")
    changed = build_config(
        config.model_dump(mode="json"), {}, "the run's settings", [f"{key}={value}" for key, value in settings.items()]
    )
    under_way = trainer.state.epoch + 1
    if changed.train.epochs < under_way:
        raise ConfigError(f"train.epochs: epoch {under_way} is under way; {under_way} or more, or q stops and saves")
    return changed


def by_group(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted keys as a configuration has them."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = value
    return groups


def apply_plan(config: Config, trainer: Trainer) -> None:
    """Go on by another plan from the next step on.

    The schedule is then that of a run of so many epochs, as after a resume with more of them, with the user's edits in it.
    """
    schedule = trainer.state.schedule
    trainer.config = trainer.evaluator.config = config
    if config.train.epochs > schedule.epochs:
        trainer.batches.extend(config.train.epochs)
    schedule.replan(config.train.epochs)
