"""The keys and what they do; those that cannot act now are dimmed. A remark takes their place for a few seconds."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len

from trainer.run.status import RunState
from tui import format as fmt
from tui.actions import ACTIONS, Situation
from tui.canvas import Row
from tui.scene import Scene
from tui.widgets.pane import Pane


class KeyBar(Pane, can_focus=False):
    """The last line.

    Attributes:
        situation: Called at each drawing.
        remark: Shown instead of the keys when it is not empty.
    """

    def __init__(self, situation: Callable[[], Situation], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.situation = situation
        self.remark = ""

    def rows_for(self, scene: Scene, width: int, height: int) -> list[Row]:
        """The line."""
        if self.remark:
            return [[(" " + fmt.fit(fmt.literal(self.remark), width - 2), "warn")]]
        now = self.situation()
        row: Row = [(" ", "text")]
        used = 1
        last = _entry("q", "quit")
        for action in ACTIONS[:-1]:
            if not action.in_bar:
                continue
            label = "resume" if action.name == "pause" and now.state is RunState.PAUSED else action.label
            entry = _entry(action.key, label)
            size = sum(cell_len(text) for text, _ in entry)
            if used + size + sum(cell_len(text) for text, _ in last) > width:
                continue
            row += [(text, "faint") for text, _ in entry] if action.why_not(now) else entry
            used += size
        return [row + last]


def _entry(key: str, label: str) -> Row:
    return [(key, "key"), (f" {label}  ", "dim")]
