"""A whole optimizer step as one CUDA graph: the CPU then launches one graph per step instead of some four hundred kernels.

Forward pass, loss, backward pass, gate and update are captured once and replayed over buffers that stay where they are.
Augmentation comes before the graph, since its draws depend on the epoch. A step that cannot be captured is reported, and runs
kernel by kernel.

Source: PyTorch, CUDA semantics, section CUDA Graphs (whole-network capture).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trainer.errors import first_line

PLAIN_STEPS = 3  # steps before a capture, in which cuDNN chooses algorithms and one-time allocations happen

Compute = Callable[[Tensor, Tensor, Tensor], None]  # step over images (N, C, H, W), labels (N,); fills metrics (3,)


class StepGraph:
    """Counts plain steps, captures one, and replays it."""

    def __init__(self, device: torch.device) -> None:
        self.given_up = ""  # reason why steps are not captured; empty while they may be
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._shape: tuple[int, ...] = ()
        self._plain_steps = 0
        self._replay: Callable[[], None] | None = None

    def forget(self) -> None:
        """Drop the graph and capture again: trained stages or the number of micro-batches have changed."""
        self._replay, self._shape, self._plain_steps = None, (), 0

    def replays(self, *shape: int) -> bool:
        """Whether a step over images of this number and size is replayed or captured; a new shape restarts the count."""
        if shape != self._shape:
            self.forget()
            self._shape = shape
        return not self.given_up and self._plain_steps >= PLAIN_STEPS

    @contextlib.contextmanager
    def plain_step(self) -> Iterator[None]:
        """Context of a step that is not replayed. Before a capture such steps must run beside the default stream."""
        self._plain_steps += 1
        if self._stream is None or self.given_up:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def step(self, compute: Compute, images_NCHW: Tensor, labels_N: Tensor, metrics_3: Tensor) -> bool:
        """Replay the step over a batch, capturing it first if necessary; False, with nothing changed, where that fails.

        All tensors that `compute` changes must keep their addresses. No reference to it is kept, so that the owner of
        this graph is freed at once, and not by the garbage collector.
        """
        if self._replay is None:
            self._images, self._labels = torch.empty_like(images_NCHW), torch.empty_like(labels_N)
            self._metrics = torch.empty_like(metrics_3)
            stream = torch.cuda.current_stream() if self._stream else None
            try:
                self._replay = self._captured(compute)
            except RuntimeError as error:
                # The stream context is not left properly when ending the capture itself fails.
                torch.cuda.set_stream(stream)  # type: ignore[arg-type]
                self.given_up = first_line(error)
                return False
        self._images.copy_(images_NCHW)
        self._labels.copy_(labels_N)
        self._replay()
        metrics_3.copy_(self._metrics)
        return True

    def _captured(self, compute: Compute) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process may use the device, such as one that copies a snapshot.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            compute(self._images, self._labels, self._metrics)
        return graph.replay
