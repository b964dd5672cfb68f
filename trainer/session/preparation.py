"""Prepares a session: reads the checkpoint of a resume, meets the other processes, builds the parts, and logs the start."""

from __future__ import annotations

import time

from trainer.errors import CheckpointError, ConfigError
from trainer.host.health import preflight
from trainer.host.torchrun import world_size
from trainer.model.checkpoint import Checkpoint
from trainer.run.folder.run_config import changed_settings
from trainer.run.log.run_events import Resumed, Warned
from trainer.run.status import RunState
from trainer.session.command_handler import CommandHandler
from trainer.session.open_run import OpenRun
from trainer.session.saver import Saver
from trainer.session.session_state import SessionState
from trainer.training.build import BuiltTrainer, build_trainer, run_record, started_event
from trainer.training.callbacks import LoopCallbacks
from trainer.training.distributed import Peers

_PROGRESS_EVERY_S = 0.25


class Preparation:
    """The preparation of a session. On the training thread."""

    def __init__(self, run: OpenRun, saver: Saver, state: SessionState, handler: CommandHandler) -> None:
        self.peers: Peers | None = None  # None when this process trains alone
        self.resumed_at = (0, 0.0)  # step and epoch of the checkpoint of a resume
        self._run = run
        self._saver = saver
        self._state = state
        self._handler = handler
        self._checkpoint: Checkpoint | None = None
        self._changes: list[str] = []
        self._last_progress = ("", 0.0)

    def build(self, hooks: LoopCallbacks) -> BuiltTrainer:
        """Build the parts; R18Error when checkpoint, settings, data or device do not fit, StopRequested on a stop."""
        if self._run.resume:
            self._checkpoint = self._newest_checkpoint()
            self._changes = self._changed_settings(self._checkpoint)
        self.peers = self._meet_peers()
        return build_trainer(
            self._run.config, self._run.runs_dir, hooks, self._progress, self._checkpoint, peers=self.peers
        )

    def log_start(self, built: BuiltTrainer) -> None:
        """Log what is trained, where a resume continues, and all warnings."""
        run, publish = self._run, self._run.log.publish
        self._saver.run_record = run_record(built, run.run_dir.name)
        for warning in (*built.warnings, *preflight(run.runs_dir)):
            publish(Warned(message=warning))
        if run.resume:
            run.write_config()  # before env.json, which records where a relative `data.root` starts
        publish(started_event(built, run.run_dir))
        if not run.resume:
            return
        state = built.trainer.state
        name = self._saver.folder.at(state.step).name if self._checkpoint else "the beginning (no checkpoint)"
        edits = [[float(step), factor] for step, factor in state.schedule.edits]
        publish(Resumed(step=state.step, epoch=state.epoch, checkpoint=name, lr_edits=edits, changes=self._changes))
        if self._checkpoint:
            self._saver.resumed_from(state.step)
            self._checkpoint = None  # its tensors are in the model

    def _newest_checkpoint(self) -> Checkpoint | None:
        """The newest intact checkpoint, or None; sets damaged ones aside. CheckpointError if all are, or one is unreadable."""
        checkpoint, problems = self._saver.folder.newest_valid()
        if problems and checkpoint is None:
            raise CheckpointError(
                "every checkpoint of this run is damaged, so it cannot be resumed:\n" + "\n".join(problems.values())
                + "\nStart a new run with the same configuration: r18-tui " + str(self._run.run_dir.config)
            )  # fmt: skip
        self._saver.folder.set_aside(problems, suffix=".damaged")
        if checkpoint is not None:
            self.resumed_at = checkpoint.step, round(checkpoint.step / checkpoint.run.steps_per_epoch, 4)
        for problem in problems.values():
            self._run.log.publish(Warned(message=f"skipped checkpoint {problem}"))
        return checkpoint

    def _changed_settings(self, checkpoint: Checkpoint | None) -> list[str]:
        """Settings that this resume changes, as `key: old -> new`.

        ConfigError when they belong to another run, or have fewer epochs than are done.
        """
        config = self._run.config
        changes = changed_settings(self._run.run_dir, checkpoint.run.config if checkpoint else None, config)
        done = checkpoint.state.epoch if checkpoint else 0
        if config.train.epochs < done:
            raise ConfigError(f"train.epochs={config.train.epochs}: {done} epochs of this run are done already")
        return changes

    def _meet_peers(self) -> Peers | None:
        """Join the other processes of this training, if torchrun started several."""
        if world_size() == 1:
            return None
        if self._run.config.model.cache_features:
            raise ConfigError("model.cache_features works with one process only; set it to false")
        self._progress("meeting the other processes", None)
        peers = Peers()
        peers.broadcast_json({"run": str(self._run.run_dir.path.absolute()), "config": self._run.settings.values})
        return peers

    def _progress(self, detail: str, fraction: float | None) -> None:
        self._handler.handle_in_preparation()
        name, last = self._last_progress
        now = time.monotonic()
        if detail.split(",")[0] != name or now - last >= _PROGRESS_EVERY_S:
            self._last_progress = (detail.split(",")[0], now)
            self._state.show(RunState.PREPARING, detail, None if fraction is None else round(fraction, 3))
