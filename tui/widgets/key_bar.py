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
        *actions, asking, leaving = (action for action in ACTIONS if action.in_bar)
        always = (asking, leaving)
        left = width - 1 - sum(_size(action.key, action.label) for action in always)
        short = sum(_size(action.key, action.label) for action in actions) > left
        for action in actions:
            label = action.short if short and action.short else action.label
            if action.name == "pause" and now.state is RunState.PAUSED:
                label = "resume"
            left -= _size(action.key, label)
            if left < 0:
                left += _size(action.key, label)
                continue
            row += _entry(action.key, label, dimmed=bool(action.why_not(now)))
        return [row + [run for action in always for run in _entry(action.key, action.label)]]


def _entry(key: str, label: str, *, dimmed: bool = False) -> Row:
    return [(key, "faint" if dimmed else "key"), (f" {label}  ", "faint" if dimmed else "dim")]


def _size(key: str, label: str) -> int:
    return cell_len(f"{key} {label}  ")
