"""Copies of a run's state that later steps do not change. On a GPU they are made without a wait for the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trainer.errors import is_out_of_memory
from trainer.model.checkpoint import Checkpoint
from trainer.model.checkpoint_records import RunRecord, StateRecord
from trainer.model.device import side_stream

_LOSS_SCALE = "loss_scale"


class TensorCopy:
    """Copies of tensors at one point of the device's work; `fetched` waits until they have arrived on the CPU.

    The tensors are cloned on their device, beside which training goes on; where that has no room, the caller waits.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        self._cloned: torch.cuda.Event | None = None
        clones = _clones(tensors) if any(tensor.is_cuda for tensor in tensors.values()) else None
        if clones is not None:
            self._cloned = torch.cuda.Event()
            self._cloned.record()
        self._tensors = clones or {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}

    def fetched(self) -> dict[str, Tensor]:
        """The copies, on the CPU, once they have arrived there. For any thread, but one at a time."""
        if self._cloned is not None:
            self._tensors, self._cloned = _fetched(self._tensors, self._cloned), None
        return self._tensors


class Snapshot:
    """The state at one point of the device's work; `completed` waits until it has arrived on the CPU."""

    def __init__(
        self, tensors: dict[str, Tensor], run: RunRecord, state: StateRecord, loss_scale_2: Tensor | None
    ) -> None:
        self._run, self._state = run, state
        # Read with the others, since reading the loss scale alone would be a wait.
        self._copy = TensorCopy(tensors if loss_scale_2 is None else tensors | {_LOSS_SCALE: loss_scale_2})

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._state.step

    def completed(self) -> Checkpoint:
        """The checkpoint, on the CPU, once its tensors have arrived there. For any thread, but one at a time."""
        # safetensors refuses channels_last tensors.
        tensors = {name: tensor.contiguous() for name, tensor in self._copy.fetched().items()}
        scale = tensors.pop(_LOSS_SCALE, None)
        return Checkpoint(tensors, self._run, replace(self._state, loss_scale=[] if scale is None else scale.tolist()))


def _clones(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Clones on the same device, by few kernels; None where they do not fit."""
    try:
        clones = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    for dtype in {tensor.dtype for tensor in tensors.values()}:  # one kernel copies many tensors of one type
        names = [name for name, tensor in tensors.items() if tensor.dtype == dtype]
        torch._foreach_copy_([clones[name] for name in names], [tensors[name] for name in names])
    return clones


def _fetched(clones: Mapping[str, Tensor], cloned: torch.cuda.Event) -> dict[str, Tensor]:
    """Copies of the clones on the CPU, through pinned memory, on a stream beside that of training."""
    device = next(iter(clones.values())).device
    torch.cuda.set_device(device)  # of this thread: else leaving the stream would start a context on the first GPU
    stream = side_stream(device, "snapshots")
    with torch.cuda.stream(stream):
        stream.wait_event(cloned)
        fetched = {name: clone.to("cpu", non_blocking=True) for name, clone in clones.items()}
        stream.synchronize()  # before the clones are freed, and before anyone reads
    return fetched
