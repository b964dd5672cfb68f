"""Weights and gradients of every layer: norms, distributions, and dead channels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from textual.events import Click

from trainer.run.diagnosis.layer_rules import DEAD
from trainer.run.log.event import number
from trainer.run.log.result_events import LayersMeasured
from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.widgets.pane import exact, wrapped
from tui.widgets.scroll_pane import TablePane

_TITLE = "Weights and gradients"
_ABOVE_LAYERS = 2  # rows of the pane above the first layer
_LEAST_LAYERS = 8
_LEAST_HISTORY = 9
_HIGHEST_HISTORY = 15
_SIGN = 2  # cells before a layer's name, for the mark of the selected layer
_NAME = 21
_SHORT_NAME = 16
_NORM = 9
_TREND = 10
_DEAD = 7
_HISTOGRAMS = (24, 12, 8, 6)  # widths in cells: the bins of the log join evenly to each

_EXPLANATION = (
    "|weights|, |grad|: length (Euclidean norm) of weights, and of an epoch's last gradient; trend: |grad|, lowest to highest",
    "histograms: how weights and gradients lie around 0, each from minus its largest magnitude to plus that",
    "dead: channels that are 0 for all sampled held-out images, at least 32 per batch; a high learning rate causes more",
    "Read them at an earlier epoch with , and . as the curves.",
)


@dataclass(frozen=True)
class _Widths:
    """Widths of the columns in cells; 0 for one that does not fit."""

    name: int
    trend: int
    histogram: int


class LayersPane(TablePane):
    """One row per layer, from the image to the classes; for the selected one also its distributions over the run."""

    page = "layers"
    follows_cursor = True

    _chosen = _in_sight = 0  # index of the selected layer, number of visible ones

    def move(self, rows: int) -> None:
        self._chosen += rows

    def on_click(self, event: Click) -> None:
        row = event.y - _ABOVE_LAYERS
        if self._scene is not None and 0 <= row < self._in_sight:
            self._chosen = self._first + row
            self.paint(self._scene)

    def action_scroll_pages(self, pages: int) -> None:
        self.action_scroll_rows(pages * max(self._in_sight, 1))

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        measured = scene.layers()
        if measured is None:
            return self.notice(scene, _TITLE, "measured at the end of each epoch", width, height)
        inner = width - 4
        widths = _widths(inner)
        silent = _dead_channels(scene, measured)
        layers = list(range(len(measured.names)))
        self._chosen = min(max(self._chosen, 0), len(layers) - 1)
        shown, place = self._around_chosen(layers, height - 3)
        self._in_sight = len(shown)
        body = [_head(widths)]
        for layer in shown:
            sign = scene.glyphs.now if layer == self._chosen else " "
            body.append([(f"{sign} ", "accent"), *_row(scene, measured, layer, silent, widths)])
        left = height - 2 - len(body)
        lines = [line for text in _EXPLANATION for line in wrapped(text, inner)]
        if left > _LEAST_HISTORY:
            rows = min(max(left - len(lines) - 2, _LEAST_HISTORY), _HIGHEST_HISTORY)
            body += [[], *_history(scene, measured, self._chosen, inner, rows)]
        if len(body) + 1 < height - 2:
            body += [[], *([(line, "dim")] for line in lines[: height - 3 - len(body)])]
        right: Row = [
            (f"epoch {round(measured.epoch, 2):g}", "text"),
            (f"  step {measured.step:,}", "dim"),
            (place, "dim"),
        ]
        return self.frame(scene.glyphs, _TITLE, right, body, width, height, bottom="up and down choose a layer")

    def _around_chosen(self, layers: list[int], room: int) -> tuple[list[int], str]:
        """The visible layers, including the selected one; in a high pane the lower part is left to its history."""
        least = min(len(layers), _LEAST_LAYERS)
        if room - len(layers) <= _LEAST_HISTORY and room - least > _LEAST_HISTORY:
            room -= _LEAST_HISTORY + 1
        self._first = min(max(self._first, self._chosen - room + 1), self._chosen)
        return self.in_sight(layers, room)


def _widths(inner: int) -> _Widths:
    """Widths that fit: histograms take precedence over the trend, and both over long names."""
    fixed = _SIGN + 2 * _NORM + _DEAD
    name = _NAME if inner >= _NAME + fixed + _TREND + 2 + 2 * (_HISTOGRAMS[1] + 2) else _SHORT_NAME
    room = inner - name - fixed
    trend = _TREND if room >= _TREND + 2 + 2 * (_HISTOGRAMS[2] + 2) else 0
    room -= trend + 2 if trend else 0
    histogram = next((cells for cells in _HISTOGRAMS if 2 * (cells + 2) <= room), 0)
    return _Widths(name, trend, histogram)


def _head(widths: _Widths) -> Row:
    text = f"{' ' * _SIGN}{fmt.fit('layer', widths.name)}{'|weights|':>{_NORM}}{'|grad|':>{_NORM}}"
    text += f"  {fmt.fit('trend', widths.trend)}" if widths.trend else ""
    for title in ("weights", "grads") if widths.histogram else ():
        text += f"  {fmt.fit(title, widths.histogram)}"
    return [(f"{text}{'dead':>{_DEAD}}", "dim")]


def _row(scene: DisplayState, measured: LayersMeasured, layer: int, silent: dict[str, float], widths: _Widths) -> Row:
    from tui.drawing.sparkline import as_ticks, histogram

    name = measured.names[layer]
    weight, gradient = number(measured.weight_norms[layer]), measured.gradient_norms[layer]
    frozen = measured.gradient_ranges[layer] is None
    length = "frozen" if frozen else "not finite" if gradient is None else fmt.significant(gradient)
    row: Row = [
        (fmt.fit(fmt.printable(name), widths.name), "dim" if frozen else "title"),
        (f"{fmt.number(weight):>{_NORM}}", "text"),
        (f"{fmt.fit(length, _NORM - 1).rstrip():>{_NORM}}", "dim" if frozen else "bad" if gradient is None else "text"),
    ]
    if widths.trend:
        norms = [number(event.gradient_norms[layer]) for event in scene.view.layers if event.step <= measured.step]
        row.append(("  " + fmt.fit(as_ticks(norms[-widths.trend :], scene.glyphs), widths.trend), "train"))
    if widths.histogram:
        for counts, style in ((measured.weights[layer], "test"), (measured.gradients[layer], "train")):
            row.append(("  " + fmt.fit(histogram(counts, widths.histogram, scene.glyphs), widths.histogram), style))
    share = silent.get(name)
    style = "bad" if share is not None and share >= DEAD else "text" if share else "dim"
    return [*row, (f"{_share(share):>{_DEAD}}", style)]


def _share(share: float | None) -> str:
    if share is None:
        return ""
    return "0 %" if not share else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _history(scene: DisplayState, measured: LayersMeasured, layer: int, width: int, height: int) -> list[Row]:
    """Distributions of a layer's weights and gradients, side by side, with a mark at the step of the table."""
    from tui.drawing.histogram_history import Histogram, history_rows

    events, half, name = scene.view.layers, (width - 2) // 2, fmt.printable(measured.names[layer])
    here = events.index(measured)
    first, last = (f"{round(events[end].epoch, 2):g}" for end in (0, -1))
    span = f"epoch {last}" if first == last else f"epochs {first} to {last}"
    title = f"{measured.parameters[layer]:,} weights of {name}, {span}"
    weights = [Histogram(event.weight_ranges[layer], event.weights[layer]) for event in events]
    gradients = [
        None if reach is None else Histogram(reach, event.gradients[layer])
        for event in events
        for reach in [event.gradient_ranges[layer]]
    ]
    left = history_rows(weights, here, title, "test", half, height, scene.glyphs)
    right = history_rows(gradients, here, f"gradients of {name}", "train", half, height, scene.glyphs)
    nothing: Row = []
    return [[*exact(one, half), ("  ", "text"), *other] for one, other in zip_longest(left, right, fillvalue=nothing)]


def _dead_channels(scene: DisplayState, measured: LayersMeasured) -> dict[str, float]:
    """Dead channels of each layer before a ReLU, from the last evaluation before; empty if there was none."""
    evaluation = scene.evaluation()
    if evaluation is None:
        return {}
    followed = [name for name in measured.names if name.endswith(("conv1", "conv2"))]
    return {name: evaluation.silent.get(name, 0.0) for name in followed}
