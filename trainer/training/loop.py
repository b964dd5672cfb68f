"""The training loop.

    evaluate the last epoch if that is still due after a resume
    for each epoch that is left:
        for each batch from the position in the epoch:
            poll                  commands, pauses, signals; the periodic save
            step                  no wait for the device
            publish new metrics   loss, accuracy and learning rate of earlier steps
            publish the epoch, evaluate (a new best is always saved), save
    where val selects the best checkpoint: evaluate it on test, once

Everything that can interrupt it comes through `LoopCallbacks.poll`, which is also called between the batches of an evaluation.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from trainer.config.freezing import BACKBONE, STAGES, frozen_stages, stage_of, unfreezing_ends
from trainer.config.schema import Config
from trainer.data.batches.batches import Batch, Batches
from trainer.data.prepare import PreparedData
from trainer.model.checkpoint import Checkpoint
from trainer.model.layer_stats import layer_statistics
from trainer.run.log.result_events import EpochEnded, Steps
from trainer.run.log.run_events import StagesFrozen, Warned
from trainer.training.callbacks import LoopCallbacks
from trainer.training.distributed import Order
from trainer.training.interim_evaluation import InterimEvaluator
from trainer.training.metrics import StepMetrics, Stopwatch, Window
from trainer.training.state import EpochSums, TrainState
from trainer.training.step import TrainStep

_PUBLISH_EVERY_S = 0.4  # interval of the log's step events, a little shorter than that of redraws
_BUDGET_EVERY_S = 5.0
_EPOCH_SAVE_AGE_S = 10.0  # least age of the last save for another one at the end of an epoch
MAX_CONSECUTIVE_SKIPPED_STEPS = 10  # consecutive skipped steps after which waiting for a finite one makes no sense


@dataclass(kw_only=True)
class Trainer:
    """Runs the training loop over parts that were built elsewhere."""

    config: Config
    data: PreparedData
    batches: Batches
    feature_batches: Batches  # in place of `batches` while the classifier is trained on cached features
    state: TrainState
    train_step: TrainStep
    evaluator: InterimEvaluator
    metrics: StepMetrics
    stopwatch: Stopwatch
    hooks: LoopCallbacks
    device: torch.device
    last_save: float  # `time.monotonic()` of the last snapshot; set by the session

    # First of the consecutive skipped steps up to the newest; None if that was not skipped. Known after `drain`.
    skipped_from: int | None = None
    _last_divergence_report: int = 0
    _announced_frozen: int = 0
    _window_began_s: float = 0.0
    _budget_due_at: float = 0.0

    def run(self) -> str:
        """Train to the end of the configured epochs or until early stopping; returns `completed` or `stopped early`."""
        while self.state.evaluation_due or not (self.state.finished or self.stalled):
            if self.state.evaluation_due:
                self._finish_epoch()
            elif self._train_epoch():
                self._end_epoch()
        if self.evaluator.has_separate_test_split and self.state.best.tested_step != self.state.best.step:
            self.evaluator.evaluate_best_on_test(trigger="end")
        return "completed" if self.state.finished else "stopped early"

    @property
    def stalled(self) -> bool:
        """Whether the last `train.early_stop_epochs` epochs, with everything unfrozen, brought no improvement."""
        patience, per_epoch = self.config.train.early_stop_epochs, self.state.schedule.steps_per_epoch
        if patience is None:
            return False
        unfrozen = max(self.state.unfrozen_step, unfreezing_ends(self.config.model) * per_epoch)
        return self.state.best.is_stalled(patience * per_epoch, not_before=unfrozen)

    @property
    def over(self) -> bool:
        """Whether no more steps follow."""
        return self.state.finished or (self.stalled and not self.state.evaluation_due)

    def freeze(self, stages: int) -> None:
        """Freeze this many stages, from the image, from the next step on; later scheduled unfreezing counts from there."""
        self.state.unfrozen_by_key = frozen_stages(self.config.model, self.state.epoch) - stages
        self.state.unfrozen_step = self.state.step
        self._announce(self.frozen_now)

    def drain(self) -> None:
        """Wait for the metrics of all steps so far, and publish them with the time spent until now."""
        self._budget_due_at = 0.0
        self._close_window(wait=True)

    @property
    def frozen_now(self) -> int:
        """Number of stages frozen at the next step, from the image."""
        return frozen_stages(self.config.model, self.state.epoch, unfrozen_by_key=self.state.unfrozen_by_key)

    def restore_earlier(self, checkpoint: Checkpoint, factor: float) -> None:
        """Restore an earlier state of this run between two steps; `factor` scales all learning rates from there on.

        Edits made after the checkpoint are kept: otherwise a second return to it would continue at the rate of the first.
        """
        edited = self.state.schedule.edited(self.state.step)
        self.metrics.forget()
        self.state.restore(checkpoint)
        self.train_step.prepare(self.frozen_now)  # first: only the momentum of trained parameters is shared
        self.train_step.set_features(None)
        self.train_step.share_state()
        schedule = self.state.schedule
        schedule.edit(self.state.step, factor * edited / schedule.edited(self.state.step))
        self.skipped_from = None

    def _train_epoch(self) -> bool:
        """Train to the end of the epoch; False when a command interrupted it, so that it continues differently."""
        batches = self._freeze_and_get_batches()
        if batches is self.batches:  # not the features of a frozen backbone
            self.hooks.on_epoch_start(self.state.epoch)
        self.stopwatch.switch("data")
        self._window_began_s = self.stopwatch.of("data", "compute")
        stream = iter(batches.epoch(self.state.epoch, self.state.epoch_step))
        for _ in range(self.state.epoch_step, self.state.schedule.steps_per_epoch):
            step = self.state.step
            self.hooks.poll()
            self._report_divergence()
            if self._changed_since(step):
                return False
            self.stopwatch.switch("data")
            while (batch := next(stream)) is None:
                self.hooks.poll()
                if self._changed_since(step):
                    return False
                self.stopwatch.switch("data")
            self.stopwatch.switch("compute")
            lr = self.state.schedule.at(self.state.step)
            self._take_step(batch, lr)
            self.state.step += 1
            if self.state.ema is not None:
                self.state.ema.update(self.state.step)
            self._publish_when_due()
        return True

    def _changed_since(self, step: int) -> bool:
        """Whether a command has restored an earlier state, or has frozen other stages."""
        return self.state.step != step or self.frozen_now != self.train_step.frozen

    def _freeze_and_get_batches(self) -> Batches:
        """Freeze the stages that are due; returns the source of batches for the others."""
        frozen = self.frozen_now
        self.train_step.prepare(frozen)
        self._announce(frozen)
        if not (self.config.model.cache_features and frozen == BACKBONE):
            self.train_step.set_features(None)
            return self.batches
        if self.train_step.features_MF is None:
            self.train_step.set_features(self.evaluator.features())
            self.train_step.prepare(frozen)
        return self.feature_batches

    def _announce(self, frozen: int) -> None:
        """Publish once which stages are frozen from the next step on."""
        if frozen != self._announced_frozen:
            self._announced_frozen = frozen
            named = self.state.model.named_parameters()
            trainable = sum(parameter.numel() for name, parameter in named if stage_of(name) >= frozen)
            stages = list(STAGES[:frozen])
            self.hooks.publish(StagesFrozen(step=self.state.step, stages=stages, trainable=trainable))

    def _take_step(self, batch: Batch, lr: float) -> None:
        before = self.train_step.micro_batches
        peers = self.train_step.peers
        slot = self.metrics.reserve_slot(self.state.step + 1, lr, len(batch) * (peers.world if peers else 1))
        if peers is not None:
            peers.order(Order.STEP, self.state.epoch, self.state.epoch_step, lr)
        try:
            self.train_step(batch, epoch=self.state.epoch, lr=lr, metrics_3=slot)
        except BaseException:
            # The state is again that of the step before, which can be saved.
            self.metrics.discard_slot()
            self.train_step.undo()
            raise
        while self.train_step.remarks:
            self.hooks.publish(Warned(message=self.train_step.remarks.pop()))
        parts = self.train_step.micro_batches
        if parts != before:
            text = f"out of memory at step {self.state.step + 1:,}: repeated. Batches are now split into {parts} micro-batches"
            self.hooks.publish(Warned(message=f"{text}; batch norm sees {len(batch) // parts} images"))

    def _report_divergence(self) -> None:
        first, step = self.skipped_from, self.state.step
        if first is None or step - max(first - 1, self._last_divergence_report) < MAX_CONSECUTIVE_SKIPPED_STEPS:
            return
        self.drain()  # the newest steps may have been finite
        if self.skipped_from is not None:
            self.hooks.on_divergence(self.state.step, self.skipped_from)
            # If training continues, ask again after as many steps. `skipped_from` stays: no later state is one to return to.
            self._last_divergence_report = self.state.step

    def _publish_when_due(self) -> None:
        self._collect(wait=False)
        if self.metrics.full or self.stopwatch.of("data", "compute") - self._window_began_s >= _PUBLISH_EVERY_S:
            self._close_window(wait=False)

    def _close_window(self, *, wait: bool) -> None:
        """Start to copy the metrics of the current window, if it has any; with `wait`, publish them."""
        self._collect(wait=True)
        if len(self.metrics):
            now = self.stopwatch.of("data", "compute")
            self.metrics.start_copy(now - self._window_began_s)
            self._window_began_s = now
            self._collect(wait=wait)

    def _collect(self, *, wait: bool) -> None:
        window = self.metrics.collect(wait=wait)
        if window is None:
            return
        self.state.sums.add(window)
        self.hooks.publish(steps_event(window, self._budget_when_due()))
        for step, skipped in enumerate(window.skipped, window.first_step):
            self.skipped_from = None if not skipped else self.skipped_from or step

    def _budget_when_due(self) -> dict[str, float]:
        """Seconds by activity, only every few seconds: in every event they would be a third of the log."""
        now = time.monotonic()
        if now < self._budget_due_at:
            return {}
        self._budget_due_at = now + _BUDGET_EVERY_S
        return self.stopwatch.budget()

    def _end_epoch(self) -> None:
        self.drain()
        step = self.state.step
        self._report_divergence()
        if self.state.step != step:
            return  # to an earlier state
        sums, self.state.sums = self.state.sums, EpochSums()
        self.hooks.publish(
            EpochEnded(
                epoch=self.state.epoch, step=self.state.step, train_loss=sums.mean_loss, train_accuracy=sums.accuracy,
                lr=self.state.schedule.at(self.state.step - 1), seconds=round(sums.seconds, 3),
            )
        )  # fmt: skip
        self.hooks.publish(layer_statistics(self.state.model, step=self.state.step, epoch=self.state.epoch))
        self.state.evaluation_due = self.state.epoch % self.config.eval.every_epochs == 0 or self.state.finished
        self._finish_epoch()

    def _finish_epoch(self) -> None:
        best = self.state.evaluation_due and self.evaluator.evaluate(self.data.dataset.selection_split, trigger="epoch")
        self.state.evaluation_due = False
        aged = time.monotonic() - self.last_save >= _EPOCH_SAVE_AGE_S
        if best or (self.config.checkpoint.every_epoch and aged and self.skipped_from is None):
            self.hooks.save(best=best)
        self.hooks.on_training_resumed()


def steps_event(window: Window, budget: dict[str, float]) -> Steps:
    """The log event for a window of steps; `budget` is seconds by activity, and may be empty."""
    return Steps(
        first_step=window.first_step,
        loss=[round(loss, 6) for loss in window.losses],
        accuracy=[round(accuracy, 6) for accuracy in window.accuracies],
        lr=[float(f"{lr:.6g}") for lr in window.lrs],
        images=sum(window.images),
        seconds=round(window.seconds, 4),
        budget=budget,
        skipped=[step for step, skipped in enumerate(window.skipped, window.first_step) if skipped],
    )
