"""Each convolution of the network, forward and backward, by products and by the library, in alternating rounds on one CPU.

    python -m benchmarks.convolutions [--stem cifar-maxpool] [--size 32] [--batch-size 128] [--precision bf16] [--rounds 7]

Nothing else should run on the machine. In training a layer takes longer, since its inputs are not in the CPU's cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import torch
from torch import Tensor, nn

from trainer.config.schema import ModelConfig
from trainer.host.process_tuning import keep_freed_memory
from trainer.model.conv.modules import Conv1x1, Conv3x3
from trainer.model.numerics import Numerics
from trainer.model.resnet import MACS_PER_PIXEL, build_model

_REPEATS = 6  # of a layer in each round


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stem", choices=tuple(MACS_PER_PIXEL), default="cifar-maxpool")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(os.cpu_count() or 1)
    numerics = Numerics(precision=arguments.precision, channels_last=True)
    model = numerics.apply_to(build_model(ModelConfig(stem=arguments.stem), 10, 0)).train()
    images_NCHW = numerics.to_memory_format(torch.randn(arguments.batch_size, 3, arguments.size, arguments.size))
    spent = {"library": 0.0, "products": 0.0}
    print("layers  convolution                 library ms  products ms  library / products")
    for layer, count, inputs_NCHW in _layers(model, images_NCHW, numerics):
        seconds_of = _compare(layer, inputs_NCHW, numerics, arguments.rounds)
        ratios = [library / products for library, products in zip(*seconds_of.values(), strict=True)]
        medians = {way: statistics.median(seconds) for way, seconds in seconds_of.items()}
        for way, seconds in medians.items():
            spent[way] += count * seconds
        name = (
            f"{layer.kernel_size[0]}x{layer.kernel_size[1]} {layer.in_channels:3} to {layer.out_channels:3} "
            f"on {inputs_NCHW.shape[2]}x{inputs_NCHW.shape[3]}, stride {layer.stride[0]}"
        )
        print(
            f"{count:4}    {name:30} {medians['library'] * 1e3:7.2f} {medians['products'] * 1e3:12.2f} "
            f"{statistics.mean(ratios):14.3f} +- {statistics.stdev(ratios) / len(ratios) ** 0.5:.3f}",
            flush=True,
        )
    print(f"a step  {'all of them':30} {spent['library'] * 1e3:7.1f} {spent['products'] * 1e3:12.1f}")
    return 0


def _layers(model: nn.Module, images_NCHW: Tensor, numerics: Numerics) -> list[tuple[Conv3x3 | Conv1x1, int, Tensor]]:
    """Different layers, the number of equal ones, and the inputs of each."""
    seen: dict[tuple[object, ...], tuple[Conv3x3 | Conv1x1, int, Tensor]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(layer, Conv3x3 | Conv1x1)
        key = layer.kernel_size, layer.stride, layer.out_channels, inputs[0].shape
        first, count, shown = seen.get(key, (layer, 0, inputs[0].detach()))
        seen[key] = first, count + 1, shown

    hooks = [
        module.register_forward_pre_hook(note) for module in model.modules() if isinstance(module, Conv3x3 | Conv1x1)
    ]
    with torch.no_grad(), numerics.autocast(images_NCHW.device):
        model(images_NCHW)
    for hook in hooks:
        hook.remove()
    return list(seen.values())


def _compare(layer: Conv3x3 | Conv1x1, inputs_NCHW: Tensor, numerics: Numerics, rounds: int) -> dict[str, list[float]]:
    """Seconds of both implementations in each round; the first round is a warm-up."""
    results: dict[str, list[float]] = {"library": [], "products": []}
    with numerics.autocast(inputs_NCHW.device):
        gradients_NKHW = torch.randn_like(layer(inputs_NCHW))
    for number in range(rounds + 1):
        for way, times in results.items():
            layer.by_products = way == "products"
            began = time.perf_counter()
            for _ in range(_REPEATS):
                shown_NCHW = inputs_NCHW.requires_grad_()
                with numerics.autocast(inputs_NCHW.device):
                    features_NKHW = layer(shown_NCHW)
                torch.autograd.grad(features_NKHW, (shown_NCHW, layer.weight), gradients_NKHW)
            if number:
                times.append((time.perf_counter() - began) / _REPEATS)
    return results


if __name__ == "__main__":
    sys.exit(main())
