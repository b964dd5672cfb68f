"""A whole optimizer step as one CUDA graph: the CPU then launches one graph per step instead of hundreds of kernels.

Augmentation, forward pass, loss, backward pass, gate and update are captured once and replayed over buffers that stay where they
are. What else changes from step to step lies on the device too: the learning rate, and the keys of the epoch's random draws. A
step that cannot be captured is reported, and runs kernel by kernel.

Source: PyTorch, CUDA semantics, section CUDA Graphs (whole-network capture).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.data.batches.batches import Batch
from trainer.errors import R18Error, first_line, is_out_of_memory
from trainer.model.device import side_stream

PLAIN_STEPS = 3  # steps before a capture, in which cuDNN chooses algorithms and one-time allocations happen
PLAIN_STEPS_OF_PEERS = 11  # the same with DistributedDataParallel, by PyTorch's notes

Compute = Callable[[Batch, Tensor], None]  # step over a batch, which fills metrics (3,)


@dataclass
class _Captured:
    """A captured step, with the buffers that it reads and the gradients that it writes."""

    replay: Callable[[], None]
    batch: Batch
    metrics_3: Tensor
    gradients: list[Tensor | None]


class StepGraph:
    """Counts plain steps, captures one for each kind of step (such as the number of images), and replays it."""

    def __init__(self, device: torch.device, parameters: list[nn.Parameter], *, plain_steps: int = PLAIN_STEPS) -> None:
        self.given_up = ""  # reason why steps are not captured; empty while they may be
        self._stream = side_stream(device, "steps") if device.type == "cuda" else None
        self._parameters = parameters
        self._plain_steps_needed = plain_steps
        self._captured: dict[Hashable, _Captured] = {}
        self.forget()

    @property
    def holds_any(self) -> bool:
        """Whether there is a captured step."""
        return bool(self._captured)

    def forget(self) -> bool:
        """Drop all graphs and capture again: trained stages or features have changed, or memory is needed.

        Returns whether there was one.
        """
        held = self.holds_any
        self._plain_steps: dict[Hashable, int] = {}
        self._captured = {}
        self._newest: _Captured | None = None
        self._pool = torch.cuda.graph_pool_handle() if self._stream else None  # shared: only one graph runs at a time
        return held

    def replays(self, kind: Hashable) -> bool:
        """Whether a step of this kind is replayed or captured."""
        return not self.given_up and self._plain_steps.get(kind, 0) >= self._plain_steps_needed

    @contextlib.contextmanager
    def plain_step(self, kind: Hashable) -> Iterator[None]:
        """Context of a step that is not replayed."""
        self._plain_steps[kind] = self._plain_steps.get(kind, 0) + 1
        self._newest = None
        with self.aside():
            yield

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Context of work beside the default stream, which must not have seen what will be captured."""
        if self._stream is None or self.given_up:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:  # also after an error, whose handler changes what the kernels on that stream may still write
            torch.cuda.current_stream().wait_stream(self._stream)

    def step(self, kind: Hashable, compute: Compute, batch: Batch, metrics_3: Tensor) -> bool:
        """Replay the step over a batch, capturing it first if necessary; False, with nothing changed, where that fails.

        All tensors that `compute` changes must keep their addresses. No reference to it is kept, so that the owner of
        this graph is freed at once, and not by the garbage collector.
        """
        captured = self._captured.get(kind)
        if captured is None:
            stream = torch.cuda.current_stream() if self._stream else None
            try:
                buffers, metrics = batch.buffers(), torch.zeros_like(metrics_3)
                replay = self._capture(compute, buffers, metrics)
            except (RuntimeError, R18Error) as error:
                # The stream context is not left properly when ending the capture itself fails.
                torch.cuda.set_stream(stream)  # type: ignore[arg-type]
                self.given_up = "it does not fit in memory" if is_out_of_memory(error) else first_line(error)
                self.forget()
                return False
            gradients = [parameter.grad for parameter in self._parameters]
            captured = self._captured[kind] = _Captured(replay, buffers, metrics, gradients)
        captured.batch.fill(batch)
        captured.replay()
        metrics_3.copy_(captured.metrics_3)
        if captured is not self._newest:
            for parameter, gradient in zip(self._parameters, captured.gradients, strict=True):
                parameter.grad = gradient
            self._newest = captured
        return True

    def _capture(self, compute: Compute, batch: Batch, metrics_3: Tensor) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process may use the device, such as one that copies a snapshot.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            compute(batch, metrics_3)
        return graph.replay
