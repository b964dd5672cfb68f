"""Full error of a failed run, and the next steps."""

from __future__ import annotations

from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.widgets.pane import Pane, wrapped


class FailurePane(Pane, can_focus=False):
    """Shown over the events when the run has failed."""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        failure = scene.view.failure
        if failure is None:
            return []
        lines = [line for paragraph in failure.error.split("\n") for line in wrapped(paragraph, width - 4)]
        body: list[Row] = [[(line, "bad" if index == 0 else "text")] for index, line in enumerate(lines)]
        if failure.checkpoint:
            body.append([("last good checkpoint ", "dim"), (failure.checkpoint, "text")])
        if failure.resume:
            body.append([("resume with ", "dim"), (fmt.printable(failure.resume), "accent")])
        room = height - 2
        if len(body) > room:
            body = [*body[: room - 1], [("… log.txt has the rest", "dim")]]
        return self.frame(
            scene.glyphs, "Failed", [], body, width, height, bottom=f"q leaves with exit code {failure.exit_code}"
        )
