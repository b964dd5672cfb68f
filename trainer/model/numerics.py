"""Precision, memory format and convolution of a network."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.model.conv.modules import Conv1x1, Conv3x3

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of products, by precision


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Numeric choices made once per run, by configuration or by timing.

    The precision is `fp32`, or `bf16` or `fp16` for autocast over fp32 weights; the convolution is `native` or
    `products` (see `trainer.model.conv`).
    """

    precision: str
    channels_last: bool
    convolution: str = "native"

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """Context of a forward pass in this precision."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=DTYPES[self.precision])

    def to_memory_format(self, images_NCHW: Tensor) -> Tensor:
        """Convert images to this memory format."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return images_NCHW.contiguous(memory_format=layout)

    def apply_to(self, model: nn.Module) -> nn.Module:
        """Convert a model in place to this memory format and these convolutions, and return it."""
        for module in model.modules():
            if isinstance(module, Conv3x3 | Conv1x1):
                module.by_products = self.convolution == "products"
        return model.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
