"""The loss over the learning rates of a range test, drawn by plotext."""

from __future__ import annotations

import math
from collections.abc import Sequence

LR_KEY = "optim.lr"

_HEADROOM = 1.5  # plot height as a multiple of lowest to first loss: an exploding loss would flatten the rest


def lr_range_plot(lrs: Sequence[float], losses: Sequence[float], width: int, height: int) -> str:
    """Loss against the logarithm of the rising rates, as text without colours; empty without points or without plotext."""
    try:
        import plotext
    except ImportError:  # no wheel for Linux on aarch64
        return ""
    if len(lrs) < 2:
        return ""
    low = min(losses)
    top = low + _HEADROOM * max(losses[0] - low, 1e-6)
    figure = plotext.figure
    figure.clear.data()
    figure.plot_size(width, height)
    x = [math.log10(lr) for lr in lrs]
    figure.draw(figure.signal(x, [min(loss, top) for loss in losses], marker="braille").lines(True))
    ruler, powers = figure.ruler("x"), range(math.ceil(x[0]), math.floor(x[-1]) + 1)
    ruler.ticks(list(powers), [f"{10.0**power:g}" for power in powers])
    text: str = figure.build().string(colorless=True)
    ruler.ticks()  # the figure is shared by all plots
    return text
