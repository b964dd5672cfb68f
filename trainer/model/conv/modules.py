"""The network's convolutions, each of which can use matrix products in training.

- Maps of 2x2 and smaller, as in ResNet-18's last stage at 32 pixels, and those that become that small: `small_maps`.
- Many channels on a small map, as in the last two stages: `winograd`.
- The weight gradient of a strided kernel, which oneDNN computes below the processor's speed: `strided`.
- The strided 1x1 convolutions parallel to them: one product.

Products are used where they measured faster (`benchmarks/convolutions.py`); `run.convolution: auto` times both ways before
training. Evaluation and export always use the library's kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.model.conv.small_maps import convolve_small_map
from trainer.model.conv.strided import convolve_strided
from trainer.model.conv.winograd import convolve_by_winograd

_SMALL = 2  # side of the largest result for which skipping the padding is worth it
_STRIDED_SIDE = 8  # side of the largest map on which nine products compute a strided kernel's gradient faster
_WINOGRAD_SIDES = range(4, 9)  # sides of maps on which Winograd's products are used ...
WINOGRAD_CHANNELS = 256  # ... and the fewest channels with which they save more than their transforms cost


class Conv3x3(nn.Conv2d):
    """3x3 `nn.Conv2d`, padding 1, no bias; with `by_products`, training uses matrix products where they are faster."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.by_products = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's own name
        """Images (N, in_channels, H, W) to features (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if not (self.by_products and self.training):
            return super().forward(input)
        stride, side = self.stride[0], max(input.shape[2:])
        if side <= stride * _SMALL:
            return convolve_small_map(*self._cast_for_autocast(input), stride=stride)
        if stride > 1 and side <= _STRIDED_SIDE:
            return convolve_strided(*self._cast_for_autocast(input), stride=stride)
        if stride == 1 and side in _WINOGRAD_SIDES and self.in_channels >= WINOGRAD_CHANNELS:
            return convolve_by_winograd(*self._cast_for_autocast(input))
        return super().forward(input)

    def _cast_for_autocast(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Cast to autocast's precision before our functions, so that weight gradients come back in fp32."""
        kind = images_NCHW.device.type
        if not torch.is_autocast_enabled(kind):
            return images_NCHW, self.weight
        dtype = torch.get_autocast_dtype(kind)
        return images_NCHW.to(dtype), self.weight.to(dtype)


class Conv1x1(nn.Conv2d):
    """1x1 `nn.Conv2d` without bias; with `by_products`, training computes it as one matrix product."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
        self.by_products = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's own name
        """Images (N, in_channels, H, W) to features (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if not (self.by_products and self.training):
            return super().forward(input)
        seen_NHWC = input.permute(0, 2, 3, 1)[:, :: self.stride[0], :: self.stride[1]]
        return functional.linear(seen_NHWC, self.weight[:, :, 0, 0]).permute(0, 3, 1, 2)
