"""The network, stage by stage, and the structure of a residual block: an explanation for newcomers."""

from __future__ import annotations

import math

from trainer.config.freezing import STAGES, stage_of
from trainer.model.stage_arithmetic import Stage, stages
from trainer.run.log.event import number
from trainer.run.log.result_events import LayersMeasured
from trainer.run.view.run_view import RunView
from tui.drawing import format as fmt
from tui.drawing.canvas import Row, bar
from tui.drawing.glyphs import Glyphs
from tui.state.display_state import DisplayState
from tui.widgets.pane import wrapped
from tui.widgets.scroll_pane import TablePane

_BRANCHES = (
    ("conv 3x3", "batch norm", "ReLU", "conv 3x3", "batch norm"),
    ("conv", "norm", "ReLU", "conv", "norm"),
    ("conv x 2",),
)
"""The layers of a residual block, from the most detailed description to the shortest."""

_EXPLANATION = (
    "A residual block adds its input x to what its layers make of it: y = ReLU(x + F(x)). The layers only need to learn the "
    "change, and the gradient flows back through the shortcut undiminished. That is why deep networks can be trained.",
    "Where a stage halves its maps ('by 2'), its first block halves them and doubles the channels, and the shortcut is a "
    "1x1 convolution. So every stage costs about as much as the one before, with four times the parameters.",
)

_STAGE_WIDTH = 18
_OUTPUT_WIDTH = 16
_PARAMETERS_WIDTH = 12
_SHARE_WIDTH = 6
_GRADIENT_WIDTH = 10
_ROOM_FOR_GRADIENT = 90


class NetworkPane(TablePane):
    """Stages with output shape, parameters and share of the computation, then a block as a drawing and in words."""

    page = "network"
    follows_cursor = True

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        view, inner = scene.view, width - 4
        if view.started is None or view.opened is None:
            return self.notice(scene, "Network", "appears when training starts", width, height)
        model = view.started.model
        image_size = int(view.opened.config.get("data", {}).get("image_size", 32))
        found = stages(str(model.get("stem")), image_size, len(view.started.classes))
        lines = [*_table(scene, found, image_size, inner), [], *_block(scene.glyphs, inner), []]
        for paragraph in _EXPLANATION:
            lines += [[(part, "text")] for part in wrapped(paragraph, inner)]
        shown, place = self.in_sight(lines, height - 2)
        return self.frame(scene.glyphs, "Network", _figures(view, found, place), shown, width, height)


def _figures(view: RunView, found: list[Stage], place: str) -> Row:
    """Totals of the network, and which lines are visible."""
    parameters, macs = sum(stage.parameters for stage in found), sum(stage.macs for stage in found)
    row: Row = [("ResNet-18", "text"), (f"  {fmt.count(parameters)} parameters", "dim")]
    if view.frozen and view.frozen.stages:
        row.append((f"  {fmt.count(view.frozen.trainable)} trained", "dim"))
    row.append((f"  {macs / 1e9:.2f} G multiply-adds per image", "dim"))
    return [*row, (place, "dim")]


def _table(scene: DisplayState, found: list[Stage], image_size: int, width: int) -> list[Row]:
    frozen = set(scene.view.frozen.stages) if scene.view.frozen else set()
    total = sum(stage.macs for stage in found)
    measured = scene.layers() if width >= _ROOM_FOR_GRADIENT else None
    gradient = _GRADIENT_WIDTH if measured else 0
    layers = max(min(34, width - _STAGE_WIDTH - _OUTPUT_WIDTH - _PARAMETERS_WIDTH - _SHARE_WIDTH - gradient - 1), 0)
    room = width - _STAGE_WIDTH - layers - _OUTPUT_WIDTH - _PARAMETERS_WIDTH - _SHARE_WIDTH - gradient - 1
    head = f"{fmt.fit('stage', _STAGE_WIDTH)}{fmt.fit('layers', layers)}"
    head += f"{'output':>{_OUTPUT_WIDTH}}{'parameters':>{_PARAMETERS_WIDTH}}"
    head += f"{'gradient':>{gradient}}" if measured else ""
    rows: list[Row] = [[(head, "dim"), ("  share of the work", "dim")]]
    image = f"{fmt.fit('image', _STAGE_WIDTH)}{' ' * layers}{f'3 x {image_size} x {image_size}':>{_OUTPUT_WIDTH}}"
    rows.append([(image, "dim")])
    for stage in found:
        name = f"{stage.name} (frozen)" if stage.name in frozen else stage.name
        shape = f"{stage.channels:,}" if stage.size == 1 else f"{stage.channels} x {stage.size} x {stage.size}"
        share = stage.macs / total
        rows.append(
            [
                (fmt.fit(name, _STAGE_WIDTH), "dim" if stage.name in frozen else "title"),
                (fmt.fit(stage.what, layers), "text"),
                (f"{shape:>{_OUTPUT_WIDTH}}{stage.parameters:>{_PARAMETERS_WIDTH},}", "text"),
                *([(f"{_gradient(measured, stage.name):>{gradient}}", "text")] if measured else []),
                (f"{100 * share:>{_SHARE_WIDTH - 2}.0f} % ", "text"),
                *(bar(share, room, scene.glyphs, "train") if room > 0 else []),
            ]
        )
    return rows


def _gradient(measured: LayersMeasured, stage: str) -> str:
    """Norm of the gradient of a stage's weights in an epoch's last step."""
    norms = [
        number(norm)
        for name, norm, reach in zip(measured.names, measured.gradient_norms, measured.gradient_ranges, strict=True)
        if STAGES[stage_of(name)] == stage and reach is not None
    ]
    return fmt.rate(math.hypot(*norms)) if norms else "none"


def _block(glyphs: Glyphs, width: int) -> list[Row]:
    """A residual block, as detailed as the width allows."""
    line = glyphs.horizontal * 2
    for layers in _BRANCHES:
        branch = f"{line} {f' {line} '.join(layers)} {line}"
        above = f"x {line}{glyphs.axis_tick}{branch}(+){line} ReLU {line} y"
        if len(above) <= width:
            break
    fork = above.index(glyphs.axis_tick)
    shortcut = " shortcut ".center(above.index("(+)") - fork, glyphs.horizontal)
    below = " " * fork + glyphs.corners[2] + shortcut + glyphs.corners[3]
    return [[("A residual block", "title")], [(above, "text")], [(below, "text")]]
