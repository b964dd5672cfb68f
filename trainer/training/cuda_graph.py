"""A whole optimizer step as one CUDA graph: the CPU then launches one thing a step, and not some four hundred kernels.

Forward pass, loss, backward pass, gate and update are captured once and replayed over buffers that stay where they are.
Augmentation comes before it, since its draws hang on the epoch. What cannot be captured is said, and goes on kernel by kernel.

Source: PyTorch, CUDA semantics, section CUDA Graphs (whole-network capture).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trainer.errors import first_line

PLAIN_STEPS = 3
"""Steps before a capture, in which cuDNN chooses its algorithms and everything that is allocated once is allocated."""

Compute = Callable[[Tensor, Tensor, Tensor], None]
"""A step over images (N, C, H, W) and labels (N,), which fills metrics (3,)."""


class StepGraph:
    """Counts plain steps, captures one, and replays it.

    Attributes:
        given_up: Why steps are not captured; empty as long as they may be.
    """

    def __init__(self, device: torch.device) -> None:
        """Begin without a graph.

        Args:
            device: That trains.
        """
        self.given_up = ""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._shape: tuple[int, ...] = ()
        self._plain_steps = 0
        self._replay: Callable[[], None] | None = None

    def forget(self) -> None:
        """Capture anew: what is trained, or in how many parts, has changed."""
        self._replay, self._shape, self._plain_steps = None, (), 0

    def replays(self, *shape: int) -> bool:
        """Whether a step over images of this number and size is replayed, or captured now; another shape begins anew."""
        if shape != self._shape:
            self.forget()
            self._shape = shape
        return not self.given_up and self._plain_steps >= PLAIN_STEPS

    @contextlib.contextmanager
    def plain_step(self) -> Iterator[None]:
        """Around a step that is not replayed. Before a capture such steps must run beside the default stream."""
        self._plain_steps += 1
        if self._stream is None or self.given_up:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def step(self, compute: Compute, images_NCHW: Tensor, labels_N: Tensor, metrics_3: Tensor) -> bool:
        """Replay the step over a batch, capturing it before where that is still to be done.

        Args:
            compute: What is captured. All tensors that it changes must keep their places. (It is not kept: who owns this graph is
                freed with it, and not with the garbage.)
            images_NCHW: Augmented, in the model's memory format.
            labels_N: int64.
            metrics_3: Filled.

        Returns:
            False when it cannot be captured: nothing has changed then, and `given_up` says why.
        """
        if self._replay is None:
            self._images, self._labels = torch.empty_like(images_NCHW), torch.empty_like(labels_N)
            self._metrics = torch.empty_like(metrics_3)
            stream = torch.cuda.current_stream() if self._stream else None
            try:
                self._replay = self._captured(compute)
            except RuntimeError as error:
                # Its context is left half way where the capture itself cannot end.
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
