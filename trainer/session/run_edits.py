"""Applies live edits between steps: learning rate, plan, frozen stages and notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainer.config.freezing import BACKBONE
from trainer.config.loader import build_config, differences, put_setting
from trainer.config.plain_config import PlainConfig
from trainer.config.schema import CHANGEABLE, Config
from trainer.errors import ConfigError, DiskError
from trainer.run.control import commands as cmd
from trainer.run.log.run_events import LrEdited, NoteAdded, SettingsChanged
from trainer.session.open_run import OpenRun
from trainer.session.saver import Saver
from trainer.training.loop import Trainer


class RunEdits:
    """Applies commands; each method returns the reason for a refusal, empty when applied. On the training thread."""

    def __init__(self, run: OpenRun, saver: Saver, trainer: Callable[[], Trainer]) -> None:
        self._run = run
        self._saver = saver
        self._get_trainer = trainer  # called only once the loop exists

    def set_lr(self, command: cmd.SetLr) -> str:
        """Scale the rest of the schedule so that the next rate is this one."""
        state = self._get_trainer().state
        current = state.schedule.at(state.step)
        if current <= 0 or not 0 < command.lr <= cmd.HIGHEST_LR:
            return f"cannot scale the rate {current:g} to {command.lr:g}; give a rate above 0 and at most {cmd.HIGHEST_LR:g}"
        return self._scale(command.lr / current)

    def scale_lr(self, command: cmd.ScaleLr) -> str:
        """Scale the rest of the schedule."""
        state = self._get_trainer().state
        scaled = command.factor * state.schedule.at(state.step)
        if not 0 < scaled <= cmd.HIGHEST_LR:
            return f"a learning rate of {scaled:g} is out of range; it must be above 0 and at most {cmd.HIGHEST_LR:g}"
        return self._scale(command.factor)

    def _scale(self, factor: float) -> str:
        state = self._get_trainer().state
        state.schedule.edit(state.step, factor)
        self._saver.mark_stale()
        self._run.log.publish(LrEdited(step=state.step, factor=factor, lr=state.schedule.at(state.step)))
        return ""

    def change_settings(self, command: cmd.ChangeSettings) -> str:
        """Change the plan and write it to the run's configuration."""
        trainer, before = self._get_trainer(), self._run.config
        if trainer.train_step.peers is not None:
            return "not possible with several processes; stop, then resume with these settings"
        try:
            config = changed_config(before, command.settings, trainer)
            self._run.change(PlainConfig.of(config))
        except (ConfigError, DiskError) as error:
            return str(error)
        apply_plan(config, trainer)
        schedule, changed = trainer.state.schedule, differences(before, config)
        new_values: dict[str, Any] = {}
        for key, (_, new) in changed.items():
            put_setting(new_values, key, new)
        self._saver.record_config(config)
        self._run.log.publish(
            SettingsChanged(
                step=trainer.state.step,
                changes=[f"{key} {old} -> {new}" for key, (old, new) in changed.items()],
                config=new_values,
                epochs=schedule.epochs,
                total_steps=schedule.total_steps,
                planned_lr=schedule.samples(),
            )
        )
        self._saver.mark_stale()
        return ""

    def freeze(self, command: cmd.Freeze | cmd.Unfreeze) -> str:
        """Train one stage fewer, or one more."""
        trainer = self._get_trainer()
        stages = trainer.frozen_now + (1 if isinstance(command, cmd.Freeze) else -1)
        if stages < 0:
            return "nothing is frozen"
        if stages > BACKBONE:
            return "all stages before the classifier are frozen"
        trainer.freeze(stages)
        self._saver.mark_stale()
        return ""

    def add_note(self, command: cmd.AddNote) -> str:
        """Add a note."""
        self._run.log.publish(NoteAdded(step=self._get_trainer().state.step, text=command.text))
        return ""


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


def apply_plan(config: Config, trainer: Trainer) -> None:
    """Apply another plan from the next step on; the schedule becomes that of a resume with it, user edits included."""
    schedule = trainer.state.schedule
    trainer.config = trainer.evaluator.config = config
    if config.train.epochs > schedule.epochs:
        trainer.batches.extend(config.train.epochs)
    schedule.replan(config.train.epochs)
