"""One optimizer step, which never waits for the device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.config.schema import Config
from trainer.data.augment.augment import Augment
from trainer.data.augment.mixing import Mix, Mixer
from trainer.data.batches.batches import Batch
from trainer.errors import DeviceError, is_out_of_memory
from trainer.model.device import free_cached_memory
from trainer.model.numerics import Numerics
from trainer.model.resnet import head_of, losses_of, set_train_mode
from trainer.training.cuda_graph import PLAIN_STEPS, PLAIN_STEPS_OF_PEERS, StepGraph
from trainer.training.distributed import Order, Peers, to_peer_error
from trainer.training.loss_scale import LossScale
from trainer.training.nonfinite_gate import NonFiniteGate
from trainer.training.optimizer import build_optimizer, forget_momentum_of_frozen, momentum_state
from trainer.training.sgd import SGD


def build_step(
    config: Config, model: nn.Module, augment: Augment, numerics: Numerics,
    *, class_weights_K: Tensor | None = None, micro_batches: int | None = None, peers: Peers | None = None,
) -> TrainStep:  # fmt: skip
    """Build the step of a model, which is changed in place to the memory format and convolutions of `numerics`.

    None means: equal class weights, micro-batches as configured, no other processes.
    """
    model = numerics.apply_to(model)
    optimizer = build_optimizer(model, config.optim, precision=numerics.precision)
    return TrainStep(
        model, optimizer, augment, config, numerics,
        class_weights_K=class_weights_K, micro_batches=micro_batches, peers=peers,
    )  # fmt: skip


class TrainStep:
    """Forward, loss, backward, clip, update; the update is skipped when loss or gradient are not finite.

    With gradient accumulation the gradient is that of the mean loss over the whole batch, whatever the micro-batches. A
    step that runs out of memory is repeated with twice as many micro-batches.
    """

    def __init__(
        self, model: nn.Module, optimizer: SGD, augment: Augment, config: Config, numerics: Numerics,
        *, class_weights_K: Tensor | None = None, micro_batches: int | None = None, peers: Peers | None = None,
    ) -> None:  # fmt: skip
        self.micro_batches = micro_batches or config.train.grad_accum_steps  # per step
        self.model = model
        self.optimizer = optimizer
        self._augment = augment
        self._config = config
        self.numerics = numerics
        self._gate = NonFiniteGate(model, optimizer)
        self._statistics = StatisticsMomentum(model)
        self._class_weights_K = class_weights_K
        device = next(model.parameters()).device
        self._mixer = Mixer.of(config.data, device)
        self._trained: list[nn.Parameter] = []
        self.frozen = 0  # number of stages, from the image (`trainer.config.freezing`)
        self.features_MF: Tensor | None = None  # of the training images, when the classifier alone is trained
        self.peers = peers
        self._forward = self._compiled(model)
        self.remarks: list[str] = []  # messages for the user; the caller removes them
        self._parallel: DistributedDataParallel | None = None
        self.loss_scale = LossScale(device, precision=numerics.precision)
        # Why steps are not replayed as a CUDA graph; empty where they may be.
        self.not_captured = why_not_captured(config, device)
        self._graph = None
        if not self.not_captured:
            plain_steps = PLAIN_STEPS if peers is None else PLAIN_STEPS_OF_PEERS
            self._graph = StepGraph(device, [*model.parameters()], plain_steps=plain_steps)

    def copy_for(self, model: nn.Module, optimizer: SGD) -> TrainStep:
        """The same step for a copy of the model, trained by this process alone."""
        step = TrainStep(
            model, optimizer, self._augment, self._config, self.numerics,
            class_weights_K=self._class_weights_K, micro_batches=self.micro_batches,
        )  # fmt: skip
        step.loss_scale = copy.deepcopy(self.loss_scale)
        step.set_features(self.features_MF)
        return step

    def set_features(self, features_MF: Tensor | None) -> None:
        """Train the classifier on features of the training images, or, with None, the network on images."""
        if self._graph is not None and features_MF is not self.features_MF:
            self._graph.forget()
        self.features_MF = features_MF

    def prepare(self, frozen: int) -> None:
        """Switch the model to training; call it at the start, after an evaluation and when frozen stages change."""
        parallel_as_before = self._parallel is not None and frozen == self.frozen
        if self._graph is not None and frozen != self.frozen:
            self._graph.forget()
        self.frozen = frozen
        set_train_mode(self.model, frozen)
        forget_momentum_of_frozen(self.model, self.optimizer)
        if self.peers is not None and not parallel_as_before:
            self.peers.order(Order.PREPARE, frozen)
            with self._graph.aside() if self._graph is not None else nullcontext():
                self._parallel = self.peers.parallel(self.model)
            self._forward = self._compiled(self._parallel)
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def __call__(self, batch: Batch, *, epoch: int, lr: float, metrics_3: Tensor) -> None:
        """Do one step; random draws depend on the epoch, which counts from 0.

        `metrics_3`, float32 (3,) on the device, is filled without a sync with mean loss, top-1, and 1 where the step
        was skipped. RuntimeError when even the smallest micro-batches run out of memory; `undo` then undoes the step.
        """
        self.optimizer.set_lr(lr)
        self._augment.draws.begin(epoch)
        if self._graph is None:
            self._plain_step(batch, epoch, metrics_3)
            return
        kind = (len(batch), batch.pixels_MHWC.shape, self._config.data.size_in(epoch), self.micro_batches)
        if self._graph.replays(kind):
            self._gate.begin()  # what `undo` restores, also when the graph never reaches its own `begin`
            compute = partial(self._compute, epoch=epoch)
            if self._graph.step(kind, compute, batch, metrics_3):
                return
            if self.peers is not None:
                # The exchange of gradients was cut off within a backward pass, and the other processes may replay theirs.
                raise DeviceError(f"no CUDA graph: {self._graph.given_up}; resume with run.cuda_graph=false")
            self.remarks.append(f"steps are computed kernel by kernel: no CUDA graph: {self._graph.given_up}")
        with self._graph.plain_step(kind):
            self._plain_step(batch, epoch, metrics_3)

    def _compute(self, batch: Batch, metrics_3: Tensor, *, epoch: int) -> None:
        """The whole step, from no numbers but the image size and what lies in tensors, without a wait for the device."""
        self._gradients(batch, epoch, metrics_3[:2])
        self._update(metrics_3)

    def _plain_step(self, batch: Batch, epoch: int, metrics_3: Tensor) -> None:
        while not self._gradients_fit(batch, epoch, metrics_3[:2]):
            self.undo()
            if self._graph is None or not self._graph.forget():  # it may fit without the memory of other graphs
                self.micro_batches = min(2 * self.micro_batches, _max_micro_batches(batch))
            free_cached_memory()  # blocks of the larger size cannot be split into smaller ones
        self._update(metrics_3)

    def _gradients_fit(self, batch: Batch, epoch: int, metrics_2: Tensor) -> bool:
        """Compute the gradients; False when memory ran out and smaller micro-batches may fit."""
        try:
            self._gradients(batch, epoch, metrics_2)
        except (RuntimeError, MemoryError) as error:
            if self.peers is not None:
                # The other processes wait in the middle of an exchange, so the step cannot be repeated.
                raise to_peer_error(error) from error
            holds_graphs = self._graph is not None and self._graph.holds_any
            if not is_out_of_memory(error) or (self.micro_batches >= _max_micro_batches(batch) and not holds_graphs):
                raise
            return False
        return True

    def _compiled(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        how = self._config.run.compile
        if how == "none":
            return model
        # CUDA graphs of compile would reuse the gradients' memory between micro-batches (pytorch/pytorch#96693).
        mode = "max-autotune-no-cudagraphs" if how == "max-autotune" else None
        return cast("Callable[[Tensor], Tensor]", torch.compile(model, mode=mode, dynamic=False))

    def _update(self, metrics_3: Tensor) -> None:
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        self.loss_scale.unscale(gradients)
        norm = nn.utils.get_total_norm(gradients)
        if self._config.train.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self._trained, self._config.train.max_grad_norm, norm)
        metrics_3[2] = self._gate.step(metrics_3[0], norm)
        self.loss_scale.update(metrics_3[2])

    def share_state(self) -> None:
        """Broadcast the leader's weights, statistics, momenta and loss scale to all processes."""
        if self.peers is None:
            return
        self.peers.order(Order.SHARE)
        values = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        self.peers.share([*values, *momentum_state(self.model, self.optimizer).values(), self.loss_scale.state_2])

    def forget_graphs(self) -> None:
        """Drop all captured steps. NCCL cannot be left while a graph holds its exchanges."""
        if self._graph is not None:
            self._graph.forget()

    def undo(self) -> None:
        """Undo the changes of a step that failed before its update."""
        self._gate.undo()

    def _gradients(self, batch: Batch, epoch: int, metrics_2: Tensor) -> None:
        """Compute the gradients of the whole batch, in memory of their own."""
        self.optimizer.zero_grad()
        metrics_2.zero_()
        parts = min(self.micro_batches, _max_micro_batches(batch))
        self._statistics.set_num_parts(parts)
        self._gate.begin()
        micros = batch.micro_batches(parts)
        partners = micros if self._mixer is None else batch.shifted_by_one().micro_batches(parts)
        for number, (micro, partner) in enumerate(zip(micros, partners, strict=True), 1):
            # Gradients are exchanged only with the last micro-batch's backward pass, once per step.
            with self._parallel.no_sync() if self._parallel is not None and number < parts else nullcontext():
                self._accumulate(micro, partner, epoch, len(micro) / len(batch), metrics_2)
        if self.peers is not None:
            # All processes then see the same verdict on the step, and take or skip it together.
            self.peers.average([metrics_2, self._gate.statistics])

    def _accumulate(self, micro: Batch, partners: Batch, epoch: int, share: float, metrics_2: Tensor) -> None:
        head_of(self.model).aim(micro.positions_N, self._augment.draws)
        if self.features_MF is not None:
            logits_NK, mix = head_of(self.model)(self.features_MF[micro.sample_ids_N]), None
        else:
            images_NCHW, mix = self._images(micro, partners, epoch, whole=share == 1.0)
            with self.numerics.autocast(images_NCHW.device):
                logits_NK = self._forward(self.numerics.to_memory_format(images_NCHW))
        losses_N = self._losses(logits_NK, micro.labels_N)
        if mix is not None:
            losses_N = mix.loss(losses_N, self._losses(logits_NK, partners.labels_N))
        self._backward(logits_NK, micro.labels_N, losses_N, share, metrics_2)

    def _backward(self, logits_NK: Tensor, labels_N: Tensor, losses_N: Tensor, share: float, metrics_2: Tensor) -> None:
        loss = losses_N.mean()
        self.loss_scale.scaled(loss * share).backward()
        with torch.no_grad():
            top1 = (logits_NK.argmax(1) == labels_N).float().mean()
            metrics_2 += torch.stack((loss.detach(), top1)) * share

    def _images(self, micro: Batch, partners: Batch, epoch: int, *, whole: bool) -> tuple[Tensor, Mix | None]:
        """Augmented images, mixed where configured."""
        images_NCHW = self._augmented(micro, epoch)
        if self._mixer is None:
            return images_NCHW, None
        mix = self._mixer(micro.positions_N, self._augment.draws, images_NCHW.shape[-1])
        partners_NCHW = images_NCHW.roll(1, 0) if whole else self._augmented(partners, epoch)
        return mix(images_NCHW, partners_NCHW), mix

    def _augmented(self, batch: Batch, epoch: int) -> Tensor:
        return self._augment(batch.pixels_MHWC, batch.rows_N, batch.sample_ids_N, batch.positions_N, epoch)

    def _losses(self, logits_NK: Tensor, labels_N: Tensor) -> Tensor:
        losses_N = losses_of(logits_NK, labels_N, label_smoothing=self._config.train.label_smoothing)
        return losses_N if self._class_weights_K is None else losses_N * self._class_weights_K[labels_N]


def why_not_captured(config: Config, device: torch.device) -> str:
    """Reason why a run's steps are not replayed as a CUDA graph; empty where they may be."""
    if device.type != "cuda":
        return "no CUDA device"
    return "" if config.run.cuda_graph else "run.cuda_graph is off"


class StatisticsMomentum:
    """Moves the running statistics of all batch norms as far in a step of many micro-batches as in a step of one."""

    def __init__(self, model: nn.Module) -> None:
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        self._momenta = [(norm, norm.momentum) for norm in norms if norm.momentum is not None]
        self._parts = 1

    def set_num_parts(self, parts: int) -> None:
        """Set the number of forward passes per step."""
        if parts == self._parts:
            return
        self._parts = parts
        for norm, momentum in self._momenta:
            norm.momentum = momentum if parts == 1 else 1.0 - (1.0 - momentum) ** (1.0 / parts)


def _max_micro_batches(batch: Batch) -> int:
    """Largest number of micro-batches: batch norm needs two images in each to have a variance."""
    return max(len(batch) // 2, 1)
