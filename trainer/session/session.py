"""A training session, from the preparation of a run to its last event."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack, suppress

from trainer.errors import DataLostError, is_out_of_memory
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.result_files import EvaluationFiles
from trainer.model.checkpoint import Checkpoint
from trainer.run.control.commands import CommandQueue, Stop
from trainer.run.log.event import Event
from trainer.run.log.run_events import NOT_INTERRUPTED, Finished, Monitored
from trainer.run.status import RunState
from trainer.session.command_handler import CommandHandler, StopRequested
from trainer.session.error_report import log_traceback
from trainer.session.final_save import FinalSave
from trainer.session.open_run import OpenRun
from trainer.session.preparation import Preparation
from trainer.session.rollback import divergence_error
from trainer.session.saver import Saver
from trainer.session.session_state import SessionState
from trainer.session.system_monitor import SystemMonitor
from trainer.session.tracker_children import start_trackers
from trainer.session.training_images import TrainingImages, training_images
from trainer.training.batch_source import plan_of
from trainer.training.callbacks import LoopCallbacks
from trainer.training.distributed import Order, PeerLostError
from trainer.training.loop import Trainer

_PAUSE_TICK_S = 0.1


class TrainingSession(LoopCallbacks):
    """Prepares a run, runs the loop, takes commands between steps and ends the run, all on the training thread."""

    def __init__(self, run: OpenRun, commands: CommandQueue, *, hold_open: Callable[[], bool]) -> None:
        self._run = run
        self._commands = commands
        self._hold_open = hold_open  # whether a dashboard is open: the session then waits at its end for more commands
        self._state = SessionState(self.publish)
        self._saver = Saver(run)
        self._handler = CommandHandler(run, commands, self._saver, self._state, lambda: self.trainer, self.poll)
        self._preparation = Preparation(run, self._saver, self._state, self._handler)
        self._final_save = FinalSave(self._saver, commands, run.log.publish, hold_open)
        self._files = EvaluationFiles(run.run_dir, run.log.publish)
        self._training_images = TrainingImages(run.config)
        self._monitor: SystemMonitor | None = None
        self._trainer: Trainer | None = None

    def run(self) -> int:
        """Train the run to its end and return the exit code; R18Error for a failure that the user can act on."""
        try:
            try:
                self._prepare()
                self._state.show(RunState.TRAINING)
                reason, code = self.trainer.run(), 0
            except StopRequested as stop:
                reason, code = stop.reason, stop.exit_code
            except Exception as error:
                # The weights are intact: a resume continues from this very step.
                if self._trainer is not None and (isinstance(error, DataLostError) or is_out_of_memory(error)):
                    self._final_save.save(self.trainer)
                raise
            self._end(reason, code)
            self._dismiss_peers()
            return code
        finally:
            self._close()

    @property
    def began(self) -> bool:
        """Whether the preparation is over."""
        return self._trainer is not None

    @property
    def trainer(self) -> Trainer:
        """The loop; exists once the preparation is over."""
        assert self._trainer is not None
        return self._trainer

    def publish(self, event: Event) -> None:
        """Log an event."""
        self._run.log.publish(event)

    def poll(self, evaluating: float | None = None) -> None:
        """Take commands, hold while paused, save when due; StopRequested when a command ends the run."""
        self._state.follow_loop(evaluating=evaluating is not None)
        if evaluating is not None:
            self._state.show_progress(evaluating)
        self._handler.handle_waiting()
        if self._state.paused and not self._state.by_key:
            self._hold()
        elif evaluating is None and self._saver.due(self.trainer):
            self.save()

    def save(self, *, best: bool = False) -> None:
        """Snapshot the state on this thread and hand it to the writer."""
        self._saver.save(self.trainer, best=best)

    def saved_best(self) -> Checkpoint:
        """Read the best checkpoint from disk."""
        return self._saver.saved_best(self.trainer.state.best.step)

    def on_epoch_start(self, epoch: int) -> None:
        """Save a sample of the images that the network receives, on another thread."""
        if self._training_images.due(epoch):
            data, config = self.trainer.data, self._run.config
            plan = plan_of(config, data.dataset.splits["train"].labels_N, self._preparation.peers)
            weights = self._training_images.weights_of(self.trainer.state.evaluated_model, len(data.dataset.classes))
            make = functools.partial(training_images, data, config, plan, epoch, weights)
            self._files.write_training_images(make, step=self.trainer.state.step, epoch=epoch + 1)

    def on_evaluation_start(self, split: str) -> None:
        """Show that an evaluation begins."""
        self._state.start_evaluation(split)

    def on_evaluation_end(self, split: str, evaluation: Evaluation, step: int) -> None:
        """Save pictures and tables of the newest evaluation in the run directory, on another thread."""
        self._state.follow_loop(evaluating=False)
        self._saver.mark_stale()
        dataset = self.trainer.data.dataset
        # A 1,000-class confusion matrix is a million cells; it is written only on request and at the end.
        if self._state.by_key or self.trainer.over:
            self._files.write_tables(evaluation, dataset, split)
        epoch = round(step / self.trainer.state.schedule.steps_per_epoch, 4)
        self._files.write_mistakes(evaluation.mistakes, dataset, split, step=step, epoch=epoch)

    def on_training_resumed(self) -> None:
        """Show that training continues."""
        self._state.follow_loop(evaluating=False)
        self._state.show(RunState.TRAINING)

    def on_divergence(self, step: int, first_skipped: int) -> None:
        """Pause for the user at the screen; without a screen, DivergedError ends the run."""
        if not self._hold_open():
            raise divergence_error(self.trainer, step, first_skipped)
        self._handler.rollback.offer(step, first_skipped)
        self._state.paused = True
        self._hold()

    def _prepare(self) -> None:
        built = self._preparation.build(self)
        self._trainer = built.trainer
        self._preparation.log_start(built)
        start_trackers(self._run.config.run.sinks, self._run.run_dir, self._run.log.publish)
        self._monitor = SystemMonitor(self.trainer.device, lambda readings: self.publish(Monitored(readings=readings)))

    def _hold(self) -> None:
        """Wait, while paused, and handle commands."""
        self.trainer.drain()  # so that the display stops at the last step
        before = self.trainer.stopwatch.switch("pause")
        assert self._monitor is not None
        self._monitor.suspend(paused=True)
        self._state.show(RunState.PAUSED)
        try:
            while self._state.paused:
                command = self._commands.take(timeout=_PAUSE_TICK_S)
                if command is not None:
                    self._handler.handle(command)
        finally:
            self._monitor.suspend(paused=False)
            self.trainer.stopwatch.switch(before)
        self._state.show(RunState.EVALUATING if self._state.evaluating else RunState.TRAINING)

    def _end(self, reason: str, code: int) -> None:
        step, epoch = self._preparation.resumed_at
        if self._trainer is not None:
            self._state.show(RunState.STOPPING if code or reason == "stopped" else RunState.SAVING, "saving")
            self._final_save.save(self.trainer)
            step = self.trainer.state.step
            epoch = round(step / self.trainer.state.schedule.steps_per_epoch, 4)
        if reason not in NOT_INTERRUPTED:
            self._handler.exporter.cancel()  # before the end, so that nothing is logged after it
        self._handler.refuse_deferred()
        self._state.finished = True
        self.publish(Finished(reason=reason, step=step, epoch=epoch, exit_code=code))
        if reason in NOT_INTERRUPTED:
            self._run.lock.publish_facts(ended=True)
            self._stay_open()
            self._wait_for_export()

    def _dismiss_peers(self) -> None:
        """End the other processes; those of a failed run find a closed connection instead."""
        if (peers := self._preparation.peers) is None:
            return
        with suppress(PeerLostError):  # a process that has died needs no order
            if self._trainer is None:
                peers.broadcast_json({"over": True})
            else:
                peers.order(Order.END)
        if self._trainer is not None:
            self._trainer.train_step.forget_graphs()
        peers.close()

    def _stay_open(self) -> None:
        """Handle evaluations, exports and saves for as long as the dashboard stays open."""
        while self._hold_open() and self._final_save.stopped_by is None:
            command = self._commands.take(timeout=0.5)
            if command is None:
                continue
            try:
                self._handler.handle(command)
            except StopRequested as stop:
                if stop.exit_code:
                    self._handler.exporter.cancel()
                return
            except Exception as error:  # noqa: BLE001 - acknowledged as refused
                # The run itself is complete; a later command cannot turn it into a failed one.
                log_traceback(self._run.run_dir, error)

    def _wait_for_export(self) -> None:
        """Wait for a requested export; a stop leaves it to `_close`, which cancels it."""
        while not self._handler.exporter.wait(_PAUSE_TICK_S):
            command = self._commands.take()
            if isinstance(command, Stop):
                return
            if command is not None:
                self._handler.answer(command, "the run ends as soon as the export has ended")

    def _close(self) -> None:
        if self._final_save.stopped_by is not None:
            self._commands.send(self._final_save.stopped_by)  # a failed run that is held open must receive it
        with ExitStack() as last_first:  # whatever one of them raises, the waiting saves are written
            last_first.callback(self._saver.close)
            last_first.callback(self._files.close)
            if self._trainer is not None:
                last_first.callback(self._trainer.batches.close)
            last_first.callback(self._handler.exporter.cancel)
            if self._monitor is not None:
                last_first.callback(self._monitor.stop)
