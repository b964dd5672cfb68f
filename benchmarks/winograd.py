"""What Winograd's algorithm F(2x2, 3x3) could gain on this CPU in fp32, layer by layer, beside PyTorch's own convolutions.

    python -m benchmarks.winograd [--batch-size 128] [--rounds 9]

Transforms are sums of shifted maps here, made for a block of images at a time, so that the factors stay in the cache between
transform and product; the fastest block is printed. "products" is the time of the matrix products alone: no way of making the
transforms can be faster. `trainer/model/conv/winograd.py`, which multiplies whole maps by small matrices, is measured in
`benchmarks.convolutions`. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.model.conv.modules import WINOGRAD_CHANNELS

LAYERS = ((4, 16, 64), (3, 8, 128), (3, 4, 256))
"""Layers of stride 1 with the max-pool stem at 32 pixels: their number, side and channels. The last are Winograd's already."""
BLOCKS = (8, 16, 32, 64, 128)
"""Images that are transformed at a time."""
_KERNEL = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


class Blocked:
    """The forward pass in NHWC, `block` images at a time, through buffers that are used again."""

    def __init__(self, block: int, side: int, channels: int) -> None:
        tiles = side // 2
        self.block, self.tiles, self.channels = block, tiles, channels
        self._padded = torch.zeros(block, side + 2, side + 2, channels)
        self._rows = torch.empty(4, block, tiles, side + 2, channels)
        self._factors = torch.empty(4, 4, block, tiles, tiles, channels)  # of the columns, of the rows
        self._products = torch.empty_like(self._factors)
        self._halves = torch.empty(4, 2, block, tiles, tiles, channels)

    def kernel_factors(self, weight_KC33: Tensor) -> Tensor:
        """Factors (16, C, K) of the kernel."""
        return torch.einsum("fy,gx,kcyx->gfck", _KERNEL, _KERNEL, weight_KC33).flatten(0, 1).contiguous()

    def transform(self, images_NHWC: Tensor) -> None:
        """Factors of the inputs: along the rows, then along the columns."""
        self._padded[:, 1:-1, 1:-1].copy_(images_NHWC)
        last = 2 * self.tiles - 1
        _input_factors([self._padded[:, i : i + last : 2] for i in range(4)], self._rows)
        _input_factors([self._rows[:, :, :, i : i + last : 2] for i in range(4)], self._factors)

    def multiply(self, kernel_FCK: Tensor) -> None:
        """Sixteen products over the channels."""
        factors, products = (x.view(16, -1, self.channels) for x in (self._factors, self._products))
        torch.bmm(factors, kernel_FCK, out=products)

    def transform_back(self, result_NHWK: Tensor) -> None:
        """Four outputs of each tile from its sixteen products."""
        _output_sums([self._products[:, i] for i in range(4)], self._halves[:, 0], self._halves[:, 1])
        for row in range(2):
            of_row = result_NHWK[:, row::2]
            _output_sums([self._halves[i, row] for i in range(4)], of_row[:, :, 0::2], of_row[:, :, 1::2])

    def convolve(self, images_NHWC: Tensor, weight_KC33: Tensor) -> Tensor:
        """The whole convolution of stride 1 and padding 1."""
        result_NHWK, kernel = torch.empty_like(images_NHWC), self.kernel_factors(weight_KC33)
        for images, result in zip(images_NHWC.split(self.block), result_NHWK.split(self.block), strict=True):
            self.transform(images)
            self.multiply(kernel)
            self.transform_back(result)
        return result_NHWK


def _input_factors(inputs: list[Tensor], factors: Tensor) -> None:
    torch.sub(inputs[0], inputs[2], out=factors[0])
    torch.add(inputs[1], inputs[2], out=factors[1])
    torch.sub(inputs[2], inputs[1], out=factors[2])
    torch.sub(inputs[1], inputs[3], out=factors[3])


def _output_sums(products: list[Tensor], first: Tensor, second: Tensor) -> None:
    torch.add(products[0], products[1], out=first).add_(products[2])
    torch.sub(products[1], products[2], out=second).sub_(products[3])


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Median milliseconds of a layer."""

    forward: float  # the library's
    backward: float  # the library's, both gradients
    products: float  # of Winograd's forward pass, without its transforms
    blocked: float  # Winograd's whole forward pass with the best block
    block: int
    error: float  # relative norm against the library


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print("layers  map           library: forward, backward   products   blocks (of images)   error", flush=True)
    saved = 0.0
    for count, side, channels in LAYERS:
        layer = measure(arguments.batch_size, side, channels, arguments.rounds)
        if channels < WINOGRAD_CHANNELS:
            saved += 3 * count * max(layer.forward - layer.products, 0)
        print(f"{count:>4}    {channels:>3} on {side:>2}x{side:<2}   {layer.forward:>12.2f} {layer.backward:>12.2f} ms "
              f"{layer.products:>8.2f} ms   {layer.blocked:>6.2f} ms ({layer.block:>3})   {layer.error:.0e}",
              flush=True)  # fmt: skip
    print(
        f"the other layers by Winograd save at most {saved:.0f} ms a step, if all three passes do and no transform takes time"
    )
    return 0


def measure(batch_size: int, side: int, channels: int, rounds: int) -> Layer:
    """One layer on random numbers."""
    images, grads = (torch.randn(batch_size, side, side, channels) for _ in range(2))
    weight = (torch.randn(channels, channels, 3, 3) / channels).contiguous(memory_format=torch.channels_last)
    images_NCHW, grads_NKHW = (x.permute(0, 3, 1, 2) for x in (images, grads))
    expected = functional.conv2d(images_NCHW, weight, padding=1).permute(0, 2, 3, 1)
    options = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False])
    times: dict[int, float] = {}
    for block in BLOCKS:
        if block <= batch_size and not batch_size % block:
            way = Blocked(block, side, channels)
            times[block] = median_ms(lambda way=way: way.convolve(images, weight), rounds)  # type: ignore[misc]
    best = min(times, key=times.__getitem__)
    way = Blocked(best, side, channels)
    kernel, parts = way.kernel_factors(weight), batch_size // best
    return Layer(
        forward=median_ms(lambda: functional.conv2d(images_NCHW, weight, padding=1), rounds),
        backward=median_ms(
            lambda: torch.ops.aten.convolution_backward(grads_NKHW, images_NCHW, weight, None, *options), rounds
        ),
        products=median_ms(lambda: repeat(parts, lambda: way.multiply(kernel)), rounds),
        blocked=times[best], block=best,
        error=float((way.convolve(images, weight) - expected).norm() / expected.norm()),
    )  # fmt: skip


def repeat(times: int, call: Callable[[], object]) -> None:
    """Call so many times."""
    for _ in range(times):
        call()


def median_ms(call: Callable[[], object], rounds: int) -> float:
    """Median time of a call, after one that does not count."""
    call()
    durations = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        durations.append(time.perf_counter() - began)
    return statistics.median(durations) * 1e3


if __name__ == "__main__":
    sys.exit(main())
