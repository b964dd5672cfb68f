"""Weights and gradients of every layer: how long they are, how they lie, and which channels are dead."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.run.events import LayersMeasured, number
from trainer.run.rules.layer_rules import DEAD
from tui import format as fmt
from tui.canvas import Row
from tui.scene import Scene
from tui.widgets.pane import wrapped
from tui.widgets.scrolling import TablePane

_TITLE = "Weights and gradients"
_NAME = 21
_SHORT_NAME = 16
_NORM = 9
_TREND = 10
_DEAD = 7
_HISTOGRAMS = (24, 12, 8, 6)
"""Cells that one may take: what the bins of the log join to evenly."""

_EXPLANATION = (
    "|weights|, |grad|: length (Euclidean norm) of weights, and of the gradient in an epoch's last step, with its trend",
    "histograms: how weights and gradients lie around 0, each from minus its largest magnitude to plus that",
    "dead: channels that are 0 for all held-out images looked at, 32 or more of each batch; a rate that is too high makes more",
    "Read them at an earlier epoch with , and . as the curves.",
)


@dataclass(frozen=True)
class _Widths:
    """Cells of the columns; 0 for one that has no room."""

    name: int
    trend: int
    histogram: int


class LayersPane(TablePane):
    """A row a layer, from the image to the classes."""

    page = "layers"
    follows_cursor = True

    def rows_for(self, scene: Scene, width: int, height: int) -> list[Row]:
        """The whole pane."""
        measured = scene.layers()
        if measured is None:
            text = "measured at the end of each epoch"
            return self.frame(scene.glyphs, _TITLE, [], [[(text, "dim")]], width, height)
        inner = width - 4
        widths = _widths(inner)
        silent = _silent(scene, measured)
        shown, place = self.in_sight(list(range(len(measured.names))), height - 3)
        body = [_head(widths), *(_row(scene, measured, layer, silent, widths) for layer in shown)]
        lines = [line for text in _EXPLANATION for line in wrapped(text, inner)]
        if len(body) + len(lines) < height - 2:
            body += [[], *([(line, "dim")] for line in lines)]
        right: Row = [(f"epoch {round(measured.epoch, 2):g}", "text"), (f"  step {measured.step:,}", "dim")]
        if place:
            right.append((f"  {place}", "dim"))
        return self.frame(scene.glyphs, _TITLE, right, body, width, height)


def _widths(inner: int) -> _Widths:
    """What there is room for: histograms before the trend, both before long names."""
    fixed = 2 * _NORM + _DEAD
    name = _NAME if inner >= _NAME + fixed + _TREND + 2 + 2 * (_HISTOGRAMS[1] + 2) else _SHORT_NAME
    room = inner - name - fixed
    trend = _TREND if room >= _TREND + 2 + 2 * (_HISTOGRAMS[2] + 2) else 0
    room -= trend + 2 if trend else 0
    histogram = next((cells for cells in _HISTOGRAMS if 2 * (cells + 2) <= room), 0)
    return _Widths(name, trend, histogram)


def _head(widths: _Widths) -> Row:
    text = f"{fmt.fit('layer', widths.name)}{'|weights|':>{_NORM}}{'|grad|':>{_NORM}}"
    text += f"  {fmt.fit('trend', widths.trend)}" if widths.trend else ""
    for title in ("weights", "grads") if widths.histogram else ():
        text += f"  {fmt.fit(title, widths.histogram)}"
    return [(f"{text}{'dead':>{_DEAD}}", "dim")]


def _row(scene: Scene, measured: LayersMeasured, layer: int, silent: dict[str, float], widths: _Widths) -> Row:
    name = measured.names[layer]
    weight, gradient = number(measured.weight_norms[layer]), measured.gradient_norms[layer]
    frozen = measured.gradient_ranges[layer] is None
    length = "frozen" if frozen else "not finite" if gradient is None else fmt.rate(gradient)
    row: Row = [
        (fmt.fit(fmt.literal(name), widths.name), "dim" if frozen else "title"),
        (f"{fmt.number(weight):>{_NORM}}", "text"),
        (
            f"{fmt.fit(length, _NORM - 1).rstrip():>{_NORM}}",
            "dim" if frozen else "bad" if gradient is None else "text",
        ),
    ]
    if widths.trend:
        row.append(("  " + fmt.fit(_trend(scene, measured, layer, widths.trend), widths.trend), "train"))
    if widths.histogram:
        for counts, style in ((measured.weights[layer], "test"), (measured.gradients[layer], "train")):
            row.append(("  " + fmt.fit(_histogram(scene, counts, widths.histogram), widths.histogram), style))
    share = silent.get(name)
    row.append(
        (f"{_share(share):>{_DEAD}}", "bad" if share is not None and share >= DEAD else "text" if share else "dim")
    )
    return row


def _share(share: float | None) -> str:
    if share is None:
        return ""
    return "0 %" if not share else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _silent(scene: Scene, measured: LayersMeasured) -> dict[str, float]:
    """Dead channels of each layer before a ReLU, by the evaluation nearest before; empty where there was none."""
    evaluation = scene.evaluation()
    if evaluation is None:
        return {}
    followed = [name for name in measured.names if name.endswith(("conv1", "conv2"))]
    return {name: evaluation.silent.get(name, 0.0) for name in followed}


def _trend(scene: Scene, measured: LayersMeasured, layer: int, width: int) -> str:
    # Here: the first frame must not wait for numpy.
    from tui.sparkline import as_ticks

    norms = [number(event.gradient_norms[layer]) for event in scene.view.layers if event.step <= measured.step]
    return as_ticks(norms[-width:], scene.glyphs)


def _histogram(scene: Scene, counts: list[int], width: int) -> str:
    from tui.sparkline import histogram

    return histogram(counts, width, scene.glyphs)
