"""A 3x3 convolution that can compute its weight gradient by matrix products, which is faster on some CPUs.

oneDNN's kernel for that gradient falls far below the processor's speed where channels are many and the feature map is
small, as in ResNet-18's last two stages. One matrix product for each of the nine positions of the kernel does the same sum.
`benchmarks/training_speed.py` measures the gain; `run.weight_gradient: auto` times both before training.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` with a 3x3 kernel, padding 1 and no bias; the same parameters under the same names.

    Attributes:
        matmul_gradient: Whether the weight gradient is computed by matrix products.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.matmul_gradient = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's own name
        """Images (N, in_channels, H, W) to features (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if not (self.matmul_gradient and self.training):
            return super().forward(input)
        weight = self.weight
        if torch.is_autocast_enabled(input.device.type):
            # Cast out here, so that what is saved for the gradient is in this precision, and gradients come back in fp32.
            dtype = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(dtype), weight.to(dtype)  # noqa: A001 - as above
        return cast(Tensor, _MatmulGradient.apply(input, weight, self.stride[0]))


def weight_gradient(images_NCHW: Tensor, grads_NKHW: Tensor, *, stride: int) -> Tensor:
    """The gradient of a 3x3 kernel with padding 1.

    Args:
        images_NCHW: What was convolved.
        grads_NKHW: Gradient of the result.
        stride: Of the convolution.

    Returns:
        Gradient (K, C, 3, 3) in channels_last.
    """
    channels, (batch, outputs, height, width) = images_NCHW.shape[1], grads_NKHW.shape
    padded_NHWC = functional.pad(images_NCHW, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    grads_KM = grads_NKHW.permute(0, 2, 3, 1).reshape(batch * height * width, outputs).t()
    result_KYXC = images_NCHW.new_empty(outputs, 3, 3, channels)
    for y in range(3):
        for x in range(3):
            seen_NHWC = padded_NHWC[:, y : y + stride * height : stride, x : x + stride * width : stride]
            torch.mm(grads_KM, seen_NHWC.reshape(-1, channels), out=result_KYXC[:, y, x])
    return result_KYXC.permute(0, 3, 1, 2)


class _MatmulGradient(torch.autograd.Function):
    """The convolution with the gradient above."""

    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, weight_KC33: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images_NCHW, weight_KC33)
        ctx.stride = stride
        return functional.conv2d(images_NCHW, weight_KC33, stride=stride, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads_NKHW: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images_NCHW, weight_KC33 = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images, _, _ = torch.ops.aten.convolution_backward(
                grads_NKHW, images_NCHW, weight_KC33, None, [ctx.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1,
                [True, False, False],
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(images_NCHW, grads_NKHW, stride=ctx.stride)
        return of_images, of_weight, None
