"""Changes the plan of a live run: epochs, and how often it is evaluated and saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.config.loader import build_config
from trainer.config.schema import CHANGEABLE, Config
from trainer.errors import ConfigError
from trainer.training.loop import Trainer


def changed_config(config: Config, settings: Mapping[str, float], trainer: Trainer) -> Config:
    """The configuration with some settings, by dotted key, replaced.

    ConfigError when a setting cannot be changed, the value is invalid, or the run would end before the current epoch.
    """
    refused = [key for key in settings if key not in CHANGEABLE]
    if refused:
        raise ConfigError(f"{refused[0]} cannot be changed during a run; {', '.join(CHANGEABLE)} can")
    changed = build_config(
        config.model_dump(mode="json"), {}, "the run's settings", [f"{key}={value}" for key, value in settings.items()]
    )
    under_way = trainer.state.epoch + 1
    if changed.train.epochs < under_way:
        raise ConfigError(f"train.epochs: epoch {under_way} is running; set {under_way} or more, or q stops and saves")
    return changed


def by_group(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Convert dotted keys to nested groups, as in a configuration."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = value
    return groups


def apply_plan(config: Config, trainer: Trainer) -> None:
    """Apply another plan from the next step on; the schedule becomes that of a resume with it, user edits included."""
    schedule = trainer.state.schedule
    trainer.config = trainer.evaluator.config = config
    if config.train.epochs > schedule.epochs:
        trainer.batches.extend(config.train.epochs)
    schedule.replan(config.train.epochs)
