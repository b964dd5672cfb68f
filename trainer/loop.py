"""The training loop.

    evaluate the last epoch if a resume finds that still to be done
    for each epoch that is left:
        for each batch from the position in the epoch:
            poll                  commands, pauses, signals; the periodic save
            step                  nothing in it waits for the device
            publish what arrived  loss, accuracy and rate of the steps before
            publish the epoch, evaluate (a new best is always saved), save
    where val chose the best: test the best, once

Everything that can interrupt it comes through `Hooks.poll`, which is also called between the batches of an evaluation.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from trainer.checkpoint import Checkpoint
from trainer.config import Config
from trainer.data.batches import Batch, Batches
from trainer.data.build import PreparedData
from trainer.data.lost_images import LostImages
from trainer.errors import CheckpointError, R18Error, is_out_of_memory
from trainer.evaluate import Evaluation, evaluate
from trainer.features import compute_features
from trainer.freezing import BACKBONE, STAGES, frozen_stages, unfreezing_ends
from trainer.metrics import StepMetrics, Stopwatch, Window
from trainer.model import MACS_PER_PIXEL
from trainer.run.events import EpochEnded, Evaluated, Event, StagesFrozen, Steps, Warned
from trainer.step import Numerics, TrainStep
from trainer.train_state import EpochSums, TrainState

_PUBLISH_EVERY_S = 0.4
"""Seconds between two groups of steps in the log: a little faster than the screen is drawn."""

_CPU_BATCH_MACS = 50_000_000_000
"""A forward pass of about a second on two cores."""

_EPOCH_SAVE_AGE_S = 10.0
"""A save at an epoch's end is skipped when the last one is younger than this."""


HOPELESS_IN_A_ROW = 10
"""Steps in a row that were left out after which waiting for a better one makes no sense."""


class DivergedError(R18Error):
    """Step after step has a loss or a gradient that is NaN or infinite."""


def evaluation_batch(config: Config, device: torch.device) -> int:
    """Images of a forward pass of an evaluation.

    As configured; on a CPU no more than take about a second, since a stop is noticed between two of them.
    """
    if device.type != "cpu":
        return config.eval.batch_size
    macs = MACS_PER_PIXEL[config.model.stem] * config.data.image_size**2
    return min(config.eval.batch_size, max(_CPU_BATCH_MACS // macs, 1))


class Hooks(Protocol):
    """What the loop asks of its session."""

    def publish(self, event: Event) -> None:
        """Log an event."""

    def poll(self, evaluating: float | None = None) -> None:
        """Take commands; returns when training may go on.

        Args:
            evaluating: Share of an evaluation that is done; None between training steps.

        Raises:
            StopRequested: To end the run.
        """

    def save(self, *, best: bool = False) -> None:
        """Snapshot the state and hand it to the writer."""

    def saved_best(self) -> Checkpoint:
        """The best state of the run, from the disk.

        Raises:
            CheckpointError: When it is not there.
        """

    def evaluating(self, split: str) -> None:
        """An evaluation begins."""

    def training(self) -> None:
        """Training goes on."""

    def measured(self, split: str, evaluation: Evaluation) -> None:
        """An evaluation has ended."""

    def diverged(self, step: int, first_skipped: int) -> None:
        """Too many steps in a row were left out; returns when training may go on.

        Args:
            step: The last of them.
            first_skipped: The first of them.

        Raises:
            DivergedError: When there is nobody to decide.
        """


@dataclass(kw_only=True)
class Trainer:
    """Runs the loop over parts that were built elsewhere.

    Attributes:
        feature_batches: What comes in place of `batches` while the classifier is trained on features that were computed once.
        lost: Told about images that cannot be read any more.
        last_save: `time.monotonic()` of the last snapshot; the session sets it.
        skipped_from: The first of the newest steps when the updates of all of them were left out, since loss or gradient were
            not finite; None when the newest step changed the weights. It is known once their metrics are (`drain`).
    """

    config: Config
    data: PreparedData
    batches: Batches
    feature_batches: Batches
    state: TrainState
    train_step: TrainStep
    numerics: Numerics
    metrics: StepMetrics
    stopwatch: Stopwatch
    hooks: Hooks
    device: torch.device
    lost: LostImages
    last_save: float

    skipped_from: int | None = None
    _decided_at: int = 0
    _announced_frozen: int = 0
    _evaluation_batch: int | None = None
    _window_began_s: float = 0.0

    def run(self) -> str:
        """Train to the end of the configured epochs, or until there is nothing more to gain.

        Returns:
            `completed` or `stopped early`.

        Raises:
            StopRequested: From `Hooks.poll`.
            DivergedError: From `Hooks.diverged`.
        """
        while self.state.evaluation_due or not (self.state.finished or self.stalled):
            if self.state.evaluation_due:
                self._finish_epoch()
            elif self._train_epoch():
                self._end_epoch()
        if self.has_test_apart and self.state.tested_step != self.state.best_step:
            self.test_the_best(trigger="end")
        return "completed" if self.state.finished else "stopped early"

    @property
    def stalled(self) -> bool:
        """Whether no evaluation for as long as `train.early_stop_epochs` allows was the best, with everything unfrozen."""
        patience, per_epoch = self.config.train.early_stop_epochs, self.state.schedule.steps_per_epoch
        if patience is None or self.state.best_step < 0:
            return False
        unfrozen = max(self.state.unfrozen_step, unfreezing_ends(self.config.model) * per_epoch)
        return self.state.measured_step - max(self.state.best_step, unfrozen) >= patience * per_epoch

    @property
    def over(self) -> bool:
        """Whether no more steps are to come."""
        return self.state.finished or (self.stalled and not self.state.evaluation_due)

    @property
    def has_test_apart(self) -> bool:
        """Whether there are test images that have not chosen the best."""
        return self.data.dataset.selection_split == "val" and "test" in self.data.dataset.splits

    def unfreeze_next(self) -> str:
        """Begin to train one more stage, from the next step on; why not, where that is so."""
        if not self.frozen_now:
            return "nothing is frozen"
        self.state.unfrozen_by_key += 1
        self.state.unfrozen_step = self.state.step
        return ""

    def evaluate(self, split: str, *, trigger: str, checkpoint: Checkpoint | None = None) -> bool:
        """Measure a split and publish the result.

        Args:
            split: `val` or `test`.
            trigger: `epoch`, `key` or `end`.
            checkpoint: What is measured; None for the state as it is.

        Returns:
            Whether it is the best so far on the selection split.
        """
        before = self.stopwatch.switch("evaluate")
        self.hooks.evaluating(split)
        begun_s = self.stopwatch.of("evaluate")
        model = self.state.measured_model
        if checkpoint is not None:
            model = copy.deepcopy(model)
            model.load_state_dict(checkpoint.measured_weights)
        while (result := self._measure(split, model)) is None:
            continue  # with smaller batches
        step = self.state.step if checkpoint is None else checkpoint.step
        best = self._note_result(split, step, result)
        self.hooks.publish(
            Evaluated(
                split=split, epoch=round(step / self.state.schedule.steps_per_epoch, 4), step=step,
                loss=result.loss, accuracy=result.accuracy, accuracy_tta=result.accuracy_tta, correct=result.correct,
                counts=result.counts, confused_with=result.confused_with, best=best, trigger=trigger,
                weights="raw" if self.state.ema is None else "ema",
                seconds=round(self.stopwatch.of("evaluate") - begun_s, 3),
            )
        )  # fmt: skip
        self.hooks.measured(split, result)
        # A stage that was let go meanwhile is unfrozen by the loop, which then feeds the step otherwise.
        self.train_step.prepare(self.train_step.frozen)
        self.stopwatch.switch(before)
        return best

    def _measure(self, split: str, model: nn.Module) -> Evaluation | None:
        """Measure a split; None when that took more memory than there is and smaller batches may take less."""
        batch_size = self._evaluation_batch or evaluation_batch(self.config, self.device)
        try:
            return evaluate(
                model,
                self.data.dataset.splits[split],
                normalize=self.data.normalize,
                numerics=self.numerics,
                num_classes=len(self.data.dataset.classes),
                batch_size=batch_size,
                tta=self.config.eval.tta == "flip",
                device=self.device,
                poll=self.hooks.poll,
                lost=self.lost,
            )
        except (RuntimeError, MemoryError) as error:
            self._halve_batch(batch_size, f"the evaluation of {split}", error)
        return None

    def _halve_batch(self, batch_size: int, what: str, error: Exception) -> None:
        """Go on with smaller batches where memory ran out.

        Raises:
            Exception: The error itself, when it was something else or nothing smaller is left.
        """
        if not is_out_of_memory(error) or batch_size == 1:
            raise error
        self._evaluation_batch = batch_size // 2
        text = f"out of memory in {what}: again, from now on with {batch_size // 2} images at a time"
        self.hooks.publish(Warned(message=text))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def drain(self) -> None:
        """Wait for the metrics of all steps done so far, and publish them."""
        self._collect(wait=True)
        if len(self.metrics):
            self.metrics.start_copy(self._close_window())
            self._collect(wait=True)

    @property
    def frozen_now(self) -> int:
        """Stages that are frozen at the next step, from the image."""
        return frozen_stages(self.config.model, self.state.epoch, unfrozen_by_key=self.state.unfrozen_by_key)

    def test_the_best(self, *, trigger: str) -> None:
        """Read the test images, with the weights that val has chosen."""
        checkpoint = None
        if self.state.best_step != self.state.step:
            try:
                checkpoint = self.hooks.saved_best()
            except CheckpointError as error:
                self.hooks.publish(Warned(message=f"the last weights are tested, and not the best: {error}"))
        self.evaluate("test", trigger=trigger, checkpoint=checkpoint)
        self.state.tested_step = self.state.best_step

    def go_back(self, checkpoint: Checkpoint, factor: float) -> None:
        """Take up an earlier state of this run, at a scaled rate. Between two steps only.

        Args:
            checkpoint: Of this run.
            factor: Of all rates from there on, edits that the checkpoint does not know of included: else a second return to it
                would go on at the rate of the first.
        """
        edited = self.state.schedule.edited(self.state.step)
        self.metrics.forget()
        self.state.restore(checkpoint)
        schedule = self.state.schedule
        schedule.edit(self.state.step, factor * edited / schedule.edited(self.state.step))
        self.skipped_from = None

    def _train_epoch(self) -> bool:
        """Train to the end of the epoch; False when a key has come between, after which it is gone on with otherwise."""
        batches = self._freeze_and_feed()
        self.stopwatch.switch("data")
        self._window_began_s = self.stopwatch.of("data", "compute")
        stream = iter(batches.epoch(self.state.epoch, self.state.epoch_step))
        for _ in range(self.state.epoch_step, self.state.schedule.steps_per_epoch):
            step = self.state.step
            self.hooks.poll()
            self._give_up_when_hopeless()
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
        """Whether a command has gone back to an earlier state, or has unfrozen a stage."""
        return self.state.step != step or self.frozen_now != self.train_step.frozen

    def _freeze_and_feed(self) -> Batches:
        """Freeze what is to be frozen now; where batches for that come from."""
        frozen = self.frozen_now
        self.train_step.prepare(frozen)
        if frozen != self._announced_frozen:
            self._announced_frozen = frozen
            stages = list(STAGES[:frozen])
            self.hooks.publish(StagesFrozen(step=self.state.step, stages=stages, trainable=self._trainable))
        if not (self.config.model.cache_features and frozen == BACKBONE):
            self.train_step.features_MF = None
            return self.batches
        if self.train_step.features_MF is None:
            self.train_step.features_MF = self._features()
            self.train_step.prepare(frozen)
        return self.feature_batches

    @property
    def _trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.state.model.parameters() if parameter.requires_grad)

    def _features(self) -> Tensor:
        """What the backbone makes of all training images."""
        before = self.stopwatch.switch("data")
        self.hooks.evaluating("features")
        while (features_MF := self._computed_features()) is None:
            continue  # with smaller batches
        self.hooks.training()
        self.stopwatch.switch(before)
        return features_MF

    def _computed_features(self) -> Tensor | None:
        """Features of all training images; None when they took more memory than there is and smaller batches may take less."""
        batch_size = self._evaluation_batch or evaluation_batch(self.config, self.device)
        try:
            return compute_features(
                self.state.model,
                self.data.dataset.splits["train"],
                normalize=self.data.normalize,
                numerics=self.numerics,
                image_size=self.config.data.image_size,
                batch_size=batch_size,
                device=self.device,
                poll=self.hooks.poll,
                lost=self.lost,
            )
        except (RuntimeError, MemoryError) as error:
            self._halve_batch(batch_size, "what the frozen backbone makes of the images", error)
        return None

    def _take_step(self, batch: Batch, lr: float) -> None:
        before = self.train_step.micro_batches
        slot = self.metrics.slot(self.state.step + 1, lr, len(batch))
        try:
            self.train_step(batch, epoch=self.state.epoch, lr=lr, metrics_3=slot)
        except BaseException:
            # The state is that of the step before again, which can be saved.
            self.metrics.take_back()
            self.train_step.undo()
            raise
        parts = self.train_step.micro_batches
        if parts != before:
            text = f"out of memory at step {self.state.step + 1:,}: taken again, from now on in {parts} parts a batch"
            self.hooks.publish(
                Warned(message=f"{text} (batch-norm statistics are then of {len(batch) // parts} images)")
            )

    def _give_up_when_hopeless(self) -> None:
        first = self.skipped_from
        if first is None or self.state.step - max(first - 1, self._decided_at) < HOPELESS_IN_A_ROW:
            return
        self.drain()  # the newest steps may have gone well
        if self.skipped_from is not None:
            self.hooks.diverged(self.state.step, self.skipped_from)
            # Whoever decided to go on as it is, or at another rate, is asked again after as many steps; the first of them stays
            # known, since no state after it is one to go back to.
            self._decided_at = self.state.step

    def _publish_when_due(self) -> None:
        self._collect(wait=False)
        if self.metrics.full or self.stopwatch.of("data", "compute") - self._window_began_s >= _PUBLISH_EVERY_S:
            self._collect(wait=True)
            self.metrics.start_copy(self._close_window())
            self._collect(wait=False)

    def _close_window(self) -> float:
        now = self.stopwatch.of("data", "compute")
        seconds, self._window_began_s = now - self._window_began_s, now
        return seconds

    def _collect(self, *, wait: bool) -> None:
        window = self.metrics.collect(wait=wait)
        if window is None:
            return
        self.state.sums.add(window)
        self.hooks.publish(_steps_event(window, self.stopwatch.budget()))
        for step, skipped in enumerate(window.skipped, window.first_step):
            self.skipped_from = None if not skipped else self.skipped_from or step

    def _end_epoch(self) -> None:
        self.drain()
        step = self.state.step
        self._give_up_when_hopeless()
        if self.state.step != step:
            return  # to an earlier state
        sums, self.state.sums = self.state.sums, EpochSums()
        self.hooks.publish(
            EpochEnded(
                epoch=self.state.epoch, step=self.state.step, train_loss=sums.mean_loss, train_accuracy=sums.accuracy,
                lr=self.state.schedule.at(self.state.step - 1), seconds=round(sums.seconds, 3),
            )
        )  # fmt: skip
        self.state.evaluation_due = self.state.epoch % self.config.eval.every_epochs == 0 or self.state.finished
        self._finish_epoch()

    def _finish_epoch(self) -> None:
        best = self.state.evaluation_due and self.evaluate(self.data.dataset.selection_split, trigger="epoch")
        self.state.evaluation_due = False
        aged = time.monotonic() - self.last_save >= _EPOCH_SAVE_AGE_S
        if best or (self.config.checkpoint.every_epoch and aged and self.skipped_from is None):
            self.hooks.save(best=best)
        self.hooks.training()

    def _note_result(self, split: str, step: int, result: Evaluation) -> bool:
        self.state.last_evaluation = {"split": split, "step": step, "accuracy": result.accuracy}
        if split != self.data.dataset.selection_split:
            return False
        self.state.measured_step = step
        if not math.isfinite(result.loss):
            return False
        if not self._is_better(result):
            return False
        self.state.best_accuracy, self.state.best_loss = result.accuracy, result.loss
        self.state.best_step = step
        return True

    def _is_better(self, result: Evaluation) -> bool:
        accuracy, loss = self.state.best_accuracy, self.state.best_loss
        if accuracy is None:
            return True
        if self.config.eval.best_by == "loss":
            return loss is None or result.loss < loss  # None: from a checkpoint of before losses were kept
        return result.accuracy > accuracy or (result.accuracy == accuracy and loss is not None and result.loss < loss)


def _steps_event(window: Window, budget: dict[str, float]) -> Steps:
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
