"""Handles the commands of a session: pause, save, evaluate, export, try rates, roll back; live edits are in `run_edits`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.run.control import commands as cmd
from trainer.run.control.commands import Command, CommandQueue, acknowledgement
from trainer.run.log.run_events import Warned
from trainer.session.error_report import explain
from trainer.session.export_child import ExportChild
from trainer.session.lr_range_trial import LrRangeTrial
from trainer.session.open_run import OpenRun
from trainer.session.rollback import Rollback
from trainer.session.run_edits import RunEdits
from trainer.session.saver import Saver
from trainer.session.session_state import Activity, SessionState
from trainer.training.loop import Trainer


class StopRequested(Exception):  # noqa: N818 - not an error
    """The user or a signal asked the run to end."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


_DURING_STEPS = cmd.SetLr, cmd.ScaleLr, cmd.ChangeSettings, cmd.FindLr  # refused once all steps are done
_DURING_RUN = cmd.Pause, cmd.GoBack, cmd.Freeze, cmd.Unfreeze  # refused once the run has ended


class CommandHandler:
    """Takes commands from the queue and answers each. Everything happens on the training thread."""

    def __init__(
        self, run: OpenRun, queue: CommandQueue, saver: Saver, state: SessionState, trainer: Callable[[], Trainer],
        poll: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._run = run
        self._queue = queue
        self._saver = saver
        self._state = state
        self._get_trainer = trainer  # called only once the loop exists
        self.exporter = ExportChild(run.run_dir, run.log.publish)
        self.rollback = Rollback(saver, run.log.publish)
        self._deferred: list[Command] = []
        edits = RunEdits(run, saver, trainer)
        rates = LrRangeTrial(state, trainer, run.log.publish, poll)
        self._handlers: dict[type[Command], Callable[[Any], str]] = {
            cmd.Pause: self._pause,
            cmd.Unpause: self._pause,
            cmd.SaveCheckpoint: self._checkpoint,
            cmd.Evaluate: self._evaluate,
            cmd.Export: self._export,
            cmd.SetLr: edits.set_lr,
            cmd.ScaleLr: edits.scale_lr,
            cmd.GoBack: self._go_back,
            cmd.Unfreeze: edits.freeze,
            cmd.Freeze: edits.freeze,
            cmd.FindLr: rates.run,
            cmd.AddNote: edits.add_note,
            cmd.ChangeSettings: edits.change_settings,
        }

    def handle_waiting(self) -> None:
        """Handle all commands in the queue; StopRequested when one ends the run."""
        while (command := self._queue.take()) is not None:
            if isinstance(command, cmd.FindLr) and self._state.activity is Activity.EVALUATION:
                self._deferred.append(command)  # a step boundary is near
            else:
                self.handle(command)
        while self._deferred and not self._state.evaluating:
            self.handle(self._deferred.pop())

    def handle(self, command: Command) -> None:
        """Handle one command and publish its answer; StopRequested when it ends the run."""
        if isinstance(command, cmd.Stop):
            self.answer(command, "")
            raise StopRequested(command.reason, command.exit_code)
        try:
            refusal = self._refusal(command) or self._handlers[type(command)](command)
        except Exception as error:
            stopped = isinstance(error, StopRequested)
            self.answer(command, "the run was stopped meanwhile" if stopped else explain(error))
            raise
        self.answer(command, refusal)

    def handle_in_preparation(self) -> None:
        """Refuse all commands in the queue but a stop, which raises StopRequested."""
        while (command := self._queue.take()) is not None:
            if isinstance(command, cmd.Stop):
                raise StopRequested(command.reason, command.exit_code)
            self.answer(command, "" if isinstance(command, cmd.Unpause) else "still preparing")

    def refuse_deferred(self) -> None:
        """Refuse the commands that wait for the next step: the run has ended."""
        for command in self._deferred:
            self.answer(command, "the run has ended meanwhile")
        self._deferred.clear()

    def answer(self, command: Command, refusal: str) -> None:
        """Publish the answer to a command; an empty refusal means that it was done."""
        self._run.log.publish(acknowledgement(command, refusal))

    def _refusal(self, command: Command) -> str:
        """The reason why a command of this kind cannot be handled now; empty if it can."""
        if isinstance(command, _DURING_STEPS) and (self._state.finished or self._get_trainer().over):
            return "all steps are done"
        if isinstance(command, _DURING_RUN) and self._state.finished:
            return "the run has ended"
        if isinstance(command, (cmd.Evaluate, cmd.GoBack)) and self._state.evaluating:
            return "an evaluation is under way"
        return ""

    def _pause(self, command: cmd.Pause | cmd.Unpause) -> str:
        self._state.paused = isinstance(command, cmd.Pause)
        return ""

    def _checkpoint(self, command: cmd.SaveCheckpoint) -> str:
        if command.reason:
            message = f"{command.reason}: saving; training continues (run.stop_on_signals)"
            self._run.log.publish(Warned(message=message))
        self._saver.save(self._get_trainer(), pinned=not command.reason)
        return ""

    def _evaluate(self, command: cmd.Evaluate) -> str:
        trainer = self._get_trainer()
        # Steps whose metrics are still on the device come before the evaluation in the log.
        trainer.drain()
        with self._state.during(Activity.EVALUATION_BY_KEY):
            if trainer.evaluator.evaluate(trainer.data.dataset.selection_split, trigger="key"):
                self._saver.save(trainer, best=True)
            # Where val selects the best checkpoint, test is not evaluated before the end, even on request.
            if self._state.finished and trainer.evaluator.has_separate_test_split:
                trainer.evaluator.evaluate_best_on_test(trigger="key")
        return ""

    def _export(self, command: cmd.Export) -> str:
        if self.exporter.running:
            return "an export is under way"
        trainer = self._get_trainer()
        step, best_step = trainer.state.step, trainer.state.best.step
        best = trainer.data.dataset.selection_split == "val" and self._state.finished and best_step >= 0
        if best and best_step != step and self._saver.folder.at(best_step).is_file():
            # The checkpoint that val selected and test evaluated, as the command `export` takes it.
            self.exporter.start(best_step, lambda: "")
            return ""
        self._saver.save(trainer, pinned=True)
        self.exporter.start(step, lambda: self._saver.wait_for(step))
        return ""

    def _go_back(self, command: cmd.GoBack) -> str:
        refusal = self.rollback.perform(self._get_trainer())
        if not refusal:
            self._state.paused = False
        return refusal
