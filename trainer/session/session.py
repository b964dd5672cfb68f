"""A training session: builds the parts, takes commands between steps, saves, and ends the run in good order.

Lives on the training thread from beginning to end. The loop calls it back through `LoopCallbacks`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import torch

from trainer.errors import CheckpointError, ConfigError, DataLostError, is_out_of_memory
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.files import EvaluationFiles
from trainer.host.health import preflight
from trainer.host.torchrun import world_size
from trainer.model.checkpoint import Checkpoint
from trainer.run.control import commands as cmd
from trainer.run.control.commands import Command, CommandQueue, answer_to
from trainer.run.folder.run_config import changed_settings
from trainer.run.log.events import (
    BY_ITSELF,
    Event,
    Finished,
    LrRangeTested,
    Monitored,
    Resumed,
    StateChanged,
    Warned,
)
from trainer.run.status import RunState
from trainer.session.error_report import explain, log_traceback
from trainer.session.export_child import ExportChild
from trainer.session.final_save import FinalSave
from trainer.session.open_run import OpenRun
from trainer.session.rollback import Rollback, no_way_back
from trainer.session.run_edits import RunEdits
from trainer.session.saver import Saver
from trainer.session.system_monitor import SystemMonitor
from trainer.session.tracker_children import SinkChildren
from trainer.session.training_images import TrainingImages, training_images
from trainer.training.batch_source import plan_of
from trainer.training.build import build_trainer, run_record, started_event
from trainer.training.distributed import Order, PeerLostError, Peers
from trainer.training.loop import Trainer
from trainer.training.lr_range_test import range_test

_PROGRESS_EVERY_S = 0.25
_EVALUATION_EVERY_S = 1.0
_PAUSE_TICK_S = 0.1


class StopRequested(Exception):  # noqa: N818 - not an error
    """The user or a signal asked the run to end."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


class _RangeTestStoppedError(Exception):
    """The key that started the range test was pressed again."""


class TrainingSession:
    """One session of a run, from preparation to the last event."""

    def __init__(self, run: OpenRun, commands: CommandQueue, *, hold_open: Callable[[], bool]) -> None:
        self._run = run
        self._commands = commands
        self._hold_open = hold_open
        self._saver = Saver(run)
        self._last_save = FinalSave(self._saver, commands, run.log.publish, hold_open)
        self._way_back = Rollback(self._saver, run.log.publish)
        self._steering = RunEdits(run, self._saver, lambda: self.trainer, lambda: self._finished)
        self._exporter = ExportChild(run.run_dir, run.log.publish)
        self._sinks = SinkChildren(run.run_dir, run.log.publish)
        self._files = EvaluationFiles(run.run_dir, run.log.publish)
        self._training_images = TrainingImages(run.config)
        self._monitor: SystemMonitor | None = None
        self._trainer: Trainer | None = None
        self._peers: Peers | None = None
        self._paused = False
        self._finished = False
        self._on_demand = self._testing_rates = False
        self._after_evaluation: list[Command] = []
        self._evaluating: float | None = None
        self._resumed_at = (0, 0.0)
        self._split = ""
        self._shown_evaluation_s = 0.0
        self._last_progress = ("", 0.0)
        self._handlers: dict[type[Command], Callable[[Any], str]] = {
            cmd.Pause: self._pause,
            cmd.Unpause: self._unpause,
            cmd.SaveCheckpoint: self._checkpoint,
            cmd.Evaluate: self._evaluate,
            cmd.Export: self._export,
            cmd.SetLr: self._steering.set_lr,
            cmd.ScaleLr: self._steering.scale_lr,
            cmd.GoBack: self._go_back,
            cmd.Unfreeze: self._steering.unfreeze,
            cmd.Freeze: self._steering.freeze,
            cmd.FindLr: self._find_lr,
            cmd.AddNote: self._steering.add_note,
            cmd.ChangeSettings: self._steering.change_settings,
        }

    def run(self) -> int:
        """Train the run to its end.

        Returns:
            The exit code.

        Raises:
            R18Error: When the run fails for a reason that the user can act on.
        """
        try:
            try:
                self._prepare()
                self._state(RunState.TRAINING)
                reason, code = self.trainer.run(), 0
            except StopRequested as stop:
                reason, code = stop.reason, stop.exit_code
            except Exception as error:
                # The images or the memory are gone, the weights are not: a resume continues from this very step.
                if self._trainer is not None and (isinstance(error, DataLostError) or is_out_of_memory(error)):
                    self._last_save.save(self.trainer)
                raise
            self._end(reason, code)
            self._dismiss_peers()
            return code
        finally:
            self._close()

    @property
    def began(self) -> bool:
        """Whether the preparation is over, so that the first step was or will be taken."""
        return self._trainer is not None

    @property
    def trainer(self) -> Trainer:
        """The loop; exists once the preparation is over."""
        assert self._trainer is not None
        return self._trainer

    # Hooks of the loop ------------------------------------------------------------------------------------------------

    def publish(self, event: Event) -> None:
        """Log an event."""
        self._run.log.publish(event)

    def poll(self, evaluating: float | None = None) -> None:
        """Take commands, hold while paused, save when due.

        Args:
            evaluating: Completed share of an evaluation; None between training steps.

        Raises:
            StopRequested: When a command ends the run.
        """
        self._evaluating = evaluating
        self._show_evaluation(evaluating)
        while (command := self._commands.take()) is not None:
            if isinstance(command, cmd.FindLr) and evaluating is not None and not self._on_demand:
                self._after_evaluation.append(command)  # a step boundary is near
            else:
                self._handle(command)
        while evaluating is None and self._after_evaluation:
            self._handle(self._after_evaluation.pop())
        if self._paused and not self._on_demand:
            self._hold()
        elif evaluating is None and self._saver.due(self.trainer):
            self.save()

    def save(self, *, best: bool = False, pinned: bool = False) -> None:
        """Snapshot the state on this thread and hand it to the writer."""
        self._saver.save(self.trainer, best=best, pinned=pinned)

    def saved_best(self) -> Checkpoint:
        """Read the best state of the run from disk."""
        return self._saver.saved_best(self.trainer.state.best_step)

    def evaluating(self, split: str) -> None:
        """Called when an evaluation begins."""
        self._split = split
        self._shown_evaluation_s = time.monotonic()
        self._state(RunState.EVALUATING, split)

    def _show_evaluation(self, share: float | None) -> None:
        """Publish the progress of a long evaluation."""
        now = time.monotonic()
        if share is not None and now - self._shown_evaluation_s >= _EVALUATION_EVERY_S:
            self._shown_evaluation_s = now
            self._state(RunState.EVALUATING, self._split, round(share, 3))

    def training(self) -> None:
        """Called when training continues."""
        self._evaluating = None
        self._state(RunState.TRAINING)

    def feeding(self, epoch: int) -> None:
        """Save a sample of the images that the network receives, on another thread."""
        if self._training_images.due(epoch):
            data, config = self.trainer.data, self._run.config
            plan = plan_of(config, data.dataset.splits["train"].labels_N, self._peers)
            make = functools.partial(training_images, data, config, plan, epoch)
            self._files.write_training_images(make, step=self.trainer.state.step, epoch=epoch + 1)

    def measured(self, split: str, evaluation: Evaluation, step: int) -> None:
        """Save pictures and tables of the newest evaluation in the run directory, on another thread."""
        self._evaluating = None
        self._saver.mark_stale()
        dataset = self.trainer.data.dataset
        # A 1,000-class confusion matrix is a million cells; it is written only on request and at the end.
        if self._on_demand or self.trainer.over:
            self._files.write_tables(evaluation, dataset, split)
        epoch = round(step / self.trainer.state.schedule.steps_per_epoch, 4)
        self._files.write_mistakes(evaluation.mistakes, dataset, split, step=step, epoch=epoch)

    def diverged(self, step: int, first_skipped: int) -> None:
        """Pause for the user at the screen; without a screen, end the run.

        Raises:
            DivergedError: Without a screen.
        """
        if not self._hold_open():
            raise no_way_back(self.trainer, step, first_skipped)
        self._way_back.offer(step, first_skipped)
        self._paused = True
        self._hold()

    # Life -------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        checkpoint = None
        if self._run.resume:
            checkpoint, problems = self._saver.folder.newest_valid()
            if problems and checkpoint is None:
                raise CheckpointError(
                    "every checkpoint of this run is damaged, so it cannot go on:\n" + "\n".join(problems.values())
                    + "\nStart a new run with the same configuration: r18-tui " + str(self._run.run_dir.config)
                )  # fmt: skip
            self._saver.folder.set_aside(problems, suffix=".damaged")
            if checkpoint is not None:
                self._resumed_at = checkpoint.step, round(checkpoint.step / checkpoint.run.steps_per_epoch, 4)
            for problem in problems.values():
                self.publish(Warned(message=f"passed over {problem}"))
        changes = self._changes(checkpoint) if self._run.resume else []
        self._peers = self._meet_peers()
        built = build_trainer(self._run.config, self._run.runs_dir, self, self._progress, checkpoint, peers=self._peers)
        self._trainer = built.trainer
        self._saver.run_record = run_record(built, self._run.run_dir.name)
        for warning in (*built.warnings, *preflight(self._run.runs_dir)):
            self.publish(Warned(message=warning))
        if self._run.resume:
            self._run.write_config()  # before env.json, which records where a relative `data.root` starts
        self.publish(started_event(built, self._run.run_dir))
        if self._run.resume:
            state = self.trainer.state
            name = self._saver.folder.at(state.step).name if checkpoint else "the beginning (no checkpoint)"
            edits = [[float(step), factor] for step, factor in state.schedule.edits]
            self.publish(Resumed(step=state.step, epoch=state.epoch, checkpoint=name, lr_edits=edits, changes=changes))
            if checkpoint:
                self._saver.resumed_from(state.step)
        self._sinks.start(self._run.config.run.sinks)
        self._monitor = SystemMonitor(self.trainer.device, lambda readings: self.publish(Monitored(readings=readings)))
        self._monitor.start()

    def _meet_peers(self) -> Peers | None:
        """Join the other processes of this training, if torchrun started several."""
        if world_size() == 1:
            return None
        if self._run.config.model.cache_features:
            raise ConfigError(
                "model.cache_features is for one process, which it keeps busy for seconds: set it to false"
            )
        self._progress("meeting the other processes", None)
        peers = Peers()
        peers.tell({"run": str(self._run.run_dir.path.absolute()), "config": self._run.settings.values})
        return peers

    def _changes(self, checkpoint: Checkpoint | None) -> list[str]:
        """Settings that this resume changes, as `key: old -> new`.

        Raises:
            ConfigError: When the settings belong to another run, or have fewer epochs than are done.
        """
        config = self._run.config
        changes = changed_settings(self._run.run_dir, checkpoint.run.config if checkpoint else None, config)
        done = checkpoint.state.epoch if checkpoint else 0
        if config.train.epochs < done:
            raise ConfigError(f"train.epochs={config.train.epochs}: {done} epochs of this run are done already")
        return changes

    def _progress(self, detail: str, fraction: float | None) -> None:
        while (command := self._commands.take()) is not None:
            if isinstance(command, cmd.Stop):
                raise StopRequested(command.reason, command.exit_code)
            self._ack(command, "" if isinstance(command, cmd.Unpause) else "still preparing")
        name, last = self._last_progress
        now = time.monotonic()
        if detail.split(",")[0] != name or now - last >= _PROGRESS_EVERY_S:
            self._last_progress = (detail.split(",")[0], now)
            self._state(RunState.PREPARING, detail, None if fraction is None else round(fraction, 3))

    def _end(self, reason: str, code: int) -> None:
        if self._trainer is not None:
            self._state(RunState.STOPPING if code or reason == "stopped" else RunState.SAVING, "saving")
            self._last_save.save(self.trainer)
        if reason not in BY_ITSELF:
            self._exporter.cancel()  # before the end, so that nothing is logged after it
        for asked in self._after_evaluation:
            self._ack(asked, "the run has ended meanwhile")
        self._after_evaluation.clear()
        step, epoch = self._position()
        self._finished = True
        self.publish(Finished(reason=reason, step=step, epoch=epoch, exit_code=code))
        if reason in BY_ITSELF:
            self._run.lock.note(ended=True)
            self._stay_open()
            # A requested export is waited for; a second stop cancels it.
            while not self._exporter.wait(_PAUSE_TICK_S):
                command = self._commands.take()
                if isinstance(command, cmd.Stop):
                    return  # _close cancels it
                if command is not None:
                    self._ack(command, "the run is being left as soon as the export has ended")

    def _dismiss_peers(self) -> None:
        """End the other processes. Those of a failed run find a closed connection instead."""
        if self._peers is None:
            return
        with suppress(PeerLostError):  # a process that has died needs no order
            if self._trainer is None:
                self._peers.tell({"over": True})
            else:
                self._peers.order(Order.END)
        self._peers.close()

    def _stay_open(self) -> None:
        """Handle evaluations, exports and saves for as long as the dashboard stays open."""
        while self._hold_open() and self._last_save.stopped_by is None:
            command = self._commands.take(timeout=0.5)
            if command is None:
                continue
            try:
                self._handle(command)
            except StopRequested as stop:
                if stop.exit_code:
                    self._exporter.cancel()
                return
            except Exception as error:  # noqa: BLE001 - acknowledged as refused
                # The run itself is complete; a later command cannot turn it into a failed one.
                log_traceback(self._run.run_dir, error)

    def _close(self) -> None:
        if self._last_save.stopped_by is not None:
            self._commands.send(self._last_save.stopped_by)  # a failed run that is held open must receive it
        with ExitStack() as last_first:  # whatever one of them raises, the waiting saves are written
            last_first.callback(self._saver.close)
            last_first.callback(self._files.close)
            if self._trainer is not None:
                last_first.callback(self._trainer.batches.close)
            last_first.callback(self._exporter.cancel)
            if self._monitor is not None:
                last_first.callback(self._monitor.stop)

    def _position(self) -> tuple[int, float]:
        if self._trainer is None:
            return self._resumed_at
        state = self.trainer.state
        return state.step, round(state.step / state.schedule.steps_per_epoch, 4)

    def _state(self, state: RunState, detail: str = "", fraction: float | None = None) -> None:
        self.publish(StateChanged(state=state.value, detail=detail, fraction=fraction))

    # Commands ---------------------------------------------------------------------------------------------------------

    def _handle(self, command: Command) -> None:
        if isinstance(command, cmd.Stop):
            self._ack(command, "")
            raise StopRequested(command.reason, command.exit_code)
        try:
            refusal = self._handlers[type(command)](command)
        except StopRequested:
            self._ack(command, "the run was stopped meanwhile")
            raise
        except Exception as error:
            self._ack(command, explain(error))
            raise
        self._ack(command, refusal)

    def _ack(self, command: Command, refusal: str) -> None:
        self.publish(answer_to(command, refusal))

    def _hold(self) -> None:
        self.trainer.drain()  # so that the display stops at the last step
        before = self.trainer.stopwatch.switch("pause")
        assert self._monitor is not None
        self._monitor.suspend(paused=True)
        self._state(RunState.PAUSED)
        try:
            while self._paused:
                command = self._commands.take(timeout=_PAUSE_TICK_S)
                if command is not None:
                    self._handle(command)
        finally:
            self._monitor.suspend(paused=False)
            self.trainer.stopwatch.switch(before)
        self._state(RunState.TRAINING if self._evaluating is None else RunState.EVALUATING)

    def _pause(self, command: cmd.Pause) -> str:
        if self._finished:
            return "the run has ended"
        self._paused = True
        return ""

    def _unpause(self, command: cmd.Unpause) -> str:
        self._paused = False
        return ""

    def _checkpoint(self, command: cmd.SaveCheckpoint) -> str:
        if command.reason:
            self.publish(Warned(message=f"{command.reason}: saving; training continues (run.stop_on_signals)"))
        self.save(pinned=not command.reason)
        return ""

    def _evaluate(self, command: cmd.Evaluate) -> str:
        if self._evaluating is not None or self._on_demand:
            return "an evaluation is under way"
        # Steps whose metrics are still on the device come before the evaluation in the log.
        self.trainer.drain()
        self._on_demand = True
        try:
            if self.trainer.evaluator.evaluate(self.trainer.data.dataset.selection_split, trigger="key"):
                self.save(best=True)
            # Where val selects the best checkpoint, the test images are not evaluated before the end, even on request.
            if self._finished and self.trainer.evaluator.has_test_apart:
                self.trainer.evaluator.test_the_best(trigger="key")
        finally:
            self._on_demand = False
            self._evaluating = None
            # Also when it was stopped: a run that has ended must not end up as "evaluating".
            self._state(RunState.FINISHED if self._finished else RunState.PAUSED if self._paused else RunState.TRAINING)
        return ""

    def _export(self, command: cmd.Export) -> str:
        if self._exporter.running:
            return "an export is under way"
        state = self.trainer.state
        best = self.trainer.data.dataset.selection_split == "val" and self._finished and state.best_step >= 0
        if best and state.best_step != state.step and self._saver.folder.at(state.best_step).is_file():
            # The checkpoint that val selected and test evaluated, as the command `export` takes it.
            self._exporter.start(state.best_step, lambda: "")
            return ""
        step = state.step
        self.save(pinned=True)
        self._exporter.start(step, lambda: self._saver.wait_for(step))
        return ""

    def _find_lr(self, command: cmd.FindLr) -> str:
        if self._finished or self.trainer.over:
            return "all steps are done"
        if self._peers is not None:
            return "not with several processes; r18-tui find-lr tries rates with one"
        if self._testing_rates:
            self._testing_rates = False
            return ""
        if self._evaluating is not None or self._on_demand:
            return "an evaluation is under way"
        self.trainer.drain()
        self._on_demand = self._testing_rates = True
        before = self.trainer.stopwatch.switch("rates")  # not in the budget, like a pause
        self.evaluating("learning rates")
        try:
            found = range_test(self.trainer, self._poll_range_test)
        except _RangeTestStoppedError:
            return "stopped by key"
        except (RuntimeError, MemoryError) as error:
            # The run itself needs no second copy of the weights.
            if not is_out_of_memory(error):
                raise
            if self.trainer.device.type == "cuda":
                torch.cuda.empty_cache()
            return "a copy of the weights does not fit in memory"
        finally:
            self._on_demand = self._testing_rates = False
            self._evaluating = None
            self.trainer.stopwatch.switch(before)
            self._state(RunState.PAUSED if self._paused else RunState.TRAINING)
        self.publish(
            LrRangeTested(
                step=self.trainer.state.step,
                lrs=[float(f"{lr:.4g}") for lr in found.lrs],
                losses=[round(loss, 5) for loss in found.losses],
                suggestion=found.suggestion,
                reason=found.reason,
            )
        )
        return ""

    def _poll_range_test(self, share: float) -> None:
        self.poll(share)
        if not self._testing_rates:
            raise _RangeTestStoppedError

    def _go_back(self, command: cmd.GoBack) -> str:
        if self._finished:
            return "the run has ended"
        if self._evaluating is not None or self._on_demand:
            return "an evaluation is under way"
        refusal = self._way_back.take(self.trainer)
        if not refusal:
            self._paused = False
        return refusal
