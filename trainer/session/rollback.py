"""Rolls back to the last good checkpoint after non-finite steps, at half the learning rate."""

from __future__ import annotations

from collections.abc import Callable

from trainer.errors import CheckpointError
from trainer.model.checkpoint import Checkpoint, read_checkpoint
from trainer.run.log.event import Event
from trainer.run.log.run_events import Diverged, LrEdited, Resumed, Warned
from trainer.session.saver import Saver
from trainer.training.callbacks import DivergedError
from trainer.training.loop import Trainer

_LR_FACTOR = 0.5  # factor of the learning rate after a rollback


class Rollback:
    """Offers a rollback and performs it. Everything happens on the training thread."""

    def __init__(self, saver: Saver, publish: Callable[[Event], object]) -> None:
        self._saver = saver
        self._publish = publish

    def offer(self, step: int, first_skipped: int) -> None:
        """Publish that the run waits after skipping `first_skipped` to `step`, and the checkpoint of a rollback."""
        self._saver.wait_until_idle()  # the newest good state may still be queued for writing
        target = next(iter(self._saver.steps_before(first_skipped)), None)
        name = "" if target is None else self._saver.folder.at(target).name
        self._publish(Diverged(step=step, in_a_row=step - first_skipped + 1, checkpoint=name))

    def perform(self, trainer: Trainer) -> str:
        """Restore the newest intact checkpoint before the non-finite steps; returns the reason for a refusal, else empty."""
        if not self._saver.wait_until_idle():
            return "a checkpoint is still being written; try again"
        for step in self._saver.steps_before(trainer.skipped_from):
            try:
                checkpoint = read_checkpoint(self._saver.folder.at(step))
            except CheckpointError as error:
                self._publish(Warned(message=f"skipped checkpoint {error}"))
            else:
                self._restore(trainer, checkpoint)
                return ""
        return "needs non-finite steps (NaN/Inf) and an intact checkpoint before them"

    def _restore(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """Continue from an earlier state of this run at a lower rate; later steps are discarded."""
        trainer.restore_earlier(checkpoint, _LR_FACTOR)
        state, folder = trainer.state, self._saver.folder
        try:
            self._saver.set_aside_after(state.step)
            if folder.pointer("best") is None and not folder.point_best(state.best.step):
                state.best.forget()
        except OSError as error:  # a resume finds the newest checkpoint by its name, and the next save points to it
            self._publish(Warned(message=f"some checkpoints after step {state.step:,} could not be set aside: {error}"))
        edits = [[float(step), factor] for step, factor in state.schedule.edits[:-1]]
        name = folder.at(checkpoint.step).name
        self._publish(Resumed(step=state.step, epoch=state.epoch, checkpoint=name, lr_edits=edits))
        step, factor = state.schedule.edits[-1]
        self._publish(LrEdited(step=step, factor=factor, lr=state.schedule.at(step)))
        self._saver.save(trainer)  # so that a resume continues at the new rate, too


def divergence_error(trainer: Trainer, step: int, first_skipped: int) -> DivergedError:
    """The error that ends a run whose steps `first_skipped` to `step` were non-finite, when no user is watching."""
    rate = trainer.state.schedule.at(max(step - 1, 0))
    return DivergedError(
        f"{step - first_skipped + 1} steps in a row up to step {step:,} had a NaN or infinite loss or gradient (learning "
        f"rate {rate:g}); none of them changed the weights. Start a new run with a lower optim.lr, a longer "
        f"schedule.warmup, or train.max_grad_norm=1.0; or resume in the dashboard and lower the rate with l"
    )
