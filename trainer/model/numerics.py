"""Precision, memory format and convolution of a network."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.model.conv.modules import Conv1x1, Conv3x3
from trainer.model.norm.modules import Block, StemNorm

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Convolution = Literal["native", "products"]
BatchNorm = Literal["native", "fused"]

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # by precision


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Numeric choices made once per run, by configuration or by timing.

    The precision is `fp32` or `tf32`, or `bf16` or `fp16` for autocast over fp32 weights; the convolution is `native` or
    `products` (see `trainer.model.conv`), batch norm `native` or `fused` (`trainer.model.norm`).
    """

    precision: Precision
    channels_last: bool
    convolution: Convolution = "native"
    batch_norm: BatchNorm = "native"

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """Context of a forward pass in this precision."""
        if DTYPES[self.precision] == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=DTYPES[self.precision])

    def to_memory_format(self, images_NCHW: Tensor) -> Tensor:
        """Convert images to this memory format."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return images_NCHW.contiguous(memory_format=layout)

    def apply_to(self, model: nn.Module) -> nn.Module:
        """Convert a model in place to this memory format, these convolutions and norms; allow TF32 or not. Returns the model."""
        allow_tf32(self.precision != "fp32")
        for module in model.modules():
            if isinstance(module, Conv3x3 | Conv1x1):
                module.by_products = self.convolution == "products"
            elif isinstance(module, Block | StemNorm):
                module.fused = self.batch_norm == "fused"
        return model.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)


def allow_tf32(allowed: bool) -> None:
    """Let fp32 products of this process use a GPU's TF32 units, or not; other devices have none.

    torch's own default is a mixture: convolutions may, matrix products may not.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
