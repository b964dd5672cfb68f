"""Evaluates held-out images between two steps of a run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from trainer.config.schema import Config
from trainer.data.batches.lost_images import LostImages
from trainer.data.prepare import PreparedData
from trainer.errors import CheckpointError, is_out_of_memory
from trainer.evaluation.evaluate import evaluate
from trainer.model.checkpoint import Checkpoint
from trainer.model.device import free_cached_memory
from trainer.model.resnet import MACS_PER_PIXEL
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Warned
from trainer.training.callbacks import LoopCallbacks
from trainer.training.features import compute_features
from trainer.training.metrics import Stopwatch
from trainer.training.state import TrainState
from trainer.training.step import TrainStep

T = TypeVar("T")

_CPU_BATCH_MACS = 50_000_000_000  # multiply-adds of a forward pass of about a second on two cores


def evaluation_batch(config: Config, device: torch.device) -> int:
    """Images per forward pass: on a CPU at most what takes about a second, since a stop is noticed between two."""
    if device.type != "cpu":
        return config.eval.batch_size
    macs = MACS_PER_PIXEL[config.model.stem] * config.data.image_size**2
    return min(config.eval.batch_size, max(_CPU_BATCH_MACS // macs, 1))


@dataclass(kw_only=True)
class InterimEvaluator:
    """Evaluates the state of a run and publishes the results, on the training thread."""

    config: Config
    data: PreparedData
    state: TrainState
    train_step: TrainStep
    stopwatch: Stopwatch
    hooks: LoopCallbacks
    device: torch.device
    lost: LostImages

    _batch: int | None = None

    @property
    def has_separate_test_split(self) -> bool:
        """Whether there are test images that were not used to choose the best checkpoint."""
        return self.data.dataset.selection_split == "val" and "test" in self.data.dataset.splits

    def evaluate(self, split: str, *, trigger: str, checkpoint: Checkpoint | None = None) -> bool:
        """Evaluate the current state, or a checkpoint, on a split and publish the result.

        `trigger` is `epoch`, `key` or `end`. Returns whether it is the best so far on the selection split.
        """
        before = self.stopwatch.switch("evaluate")
        self.hooks.on_evaluation_start(split)
        begun_s = self.stopwatch.of("evaluate")
        model = self.state.evaluated_model
        if checkpoint is not None:
            model = copy.deepcopy(model)
            model.load_state_dict(checkpoint.evaluated_weights)
        result = self._with_fitting_batches(
            f"evaluating {split}",
            lambda batch_size: evaluate(
                model, self.data.dataset.splits[split], normalize=self.data.normalize, numerics=self.train_step.numerics,
                num_classes=len(self.data.dataset.classes), batch_size=batch_size, tta=self.config.eval.tta == "flip",
                device=self.device, poll=self.hooks.poll, lost=self.lost, explain=True,
            ),
        )  # fmt: skip
        step = self.state.step if checkpoint is None else checkpoint.step
        self.state.last_evaluation = {"split": split, "step": step, "accuracy": result.accuracy}
        selects = split == self.data.dataset.selection_split
        best = selects and self.state.best.update(step, result.accuracy, result.loss, self.config.eval.best_by)
        self.hooks.publish(
            Evaluated(
                split=split, epoch=round(step / self.state.schedule.steps_per_epoch, 4), step=step,
                loss=result.loss, accuracy=result.accuracy, accuracy_tta=result.accuracy_tta, correct=result.correct,
                counts=result.counts, predicted=result.predicted, confusions=result.confusions, silent=result.silent, best=best,
                trigger=trigger,
                weights="raw" if self.state.ema is None else "ema",
                seconds=round(self.stopwatch.of("evaluate") - begun_s, 3),
            )
        )  # fmt: skip
        self.hooks.on_evaluation_end(split, result, step)
        # Stages that were unfrozen meanwhile are left to the loop, which then also changes the batches.
        self.train_step.prepare(self.train_step.frozen)
        self.stopwatch.switch(before)
        return best

    def evaluate_best_on_test(self, *, trigger: str) -> None:
        """Evaluate the best checkpoint, selected by val, on the test images."""
        checkpoint = None
        if self.state.best.step != self.state.step:
            try:
                checkpoint = self.hooks.saved_best()
            except CheckpointError as error:
                text = f"testing the last weights, because the best checkpoint cannot be read: {error}"
                self.hooks.publish(Warned(message=text))
        self.evaluate("test", trigger=trigger, checkpoint=checkpoint)
        self.state.best.tested_step = self.state.best.step

    def features(self) -> Tensor:
        """Features of all training images from the frozen backbone, (M, F)."""
        before = self.stopwatch.switch("evaluate")
        self.hooks.on_evaluation_start("features")
        features_MF = self._with_fitting_batches(
            "computing features",
            lambda batch_size: compute_features(
                self.state.model, self.data.dataset.splits["train"], normalize=self.data.normalize,
                numerics=self.train_step.numerics, image_size=self.config.data.image_size, batch_size=batch_size,
                device=self.device, poll=self.hooks.poll, lost=self.lost,
            ),
        )  # fmt: skip
        self.hooks.on_training_resumed()
        self.stopwatch.switch(before)
        return features_MF

    def _with_fitting_batches(self, doing: str, compute: Callable[[int], T]) -> T:
        """Compute with a batch size that fits in memory: it is halved, for good, whenever memory runs out."""
        while True:
            batch_size = self._batch or evaluation_batch(self.config, self.device)
            try:
                return compute(batch_size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or batch_size == 1:
                    raise
            self._batch = batch_size // 2
            text = f"out of memory while {doing}: repeated. Evaluations now use {batch_size // 2} images at a time"
            self.hooks.publish(Warned(message=text))
            free_cached_memory()
