"""The keys and what they do; those that cannot act now are dimmed. A remark takes their place for a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.cells import cell_len

from trainer.run.status import RunState
from tui import format as fmt
from tui.actions import ACTIONS, BY_NAME, Action, Situation
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
        labels = {action.name: action.label for action in ACTIONS}
        if now.state is RunState.PAUSED:
            labels["pause"] = "resume"
        if scene.unseen_output:
            labels["messages"] += f" +{scene.unseen_output}"
        shown = _fitting(labels, width - 1, also=["messages"] if scene.unseen_output else [])
        row: Row = [(" ", "text")]
        for action in shown:
            style = "warn" if action.name == "messages" and scene.unseen_output else "dim"
            row += _entry(action.key, labels[action.name], "faint" if action.why_not(now) else style)
        return [row]


def _fitting(labels: dict[str, str], room: int, *, also: list[str]) -> list[Action]:
    """The actions that find room, in order; labels are shortened, from the left, as far as that takes.

    Args:
        labels: By name; changed.
        room: Cells.
        also: Names of actions that are shown in any case, beside the last two.
    """
    actions = [action for action in ACTIONS if action.in_bar]
    always = [*also, *(action.name for action in actions[-2:])]

    def size(names: Iterable[str]) -> int:
        return sum(cell_len(f"{BY_NAME[name].key} {labels[name]}  ") for name in names)

    for action in actions:
        if size(action.name for action in actions) <= room:
            break
        if action.short:
            labels[action.name] = labels[action.name].replace(action.label, action.short, 1)
    shown = list(always)
    for action in actions:
        if action.name not in always and size([*shown, action.name]) <= room:
            shown.append(action.name)
    return [action for action in actions if action.name in shown]


def _entry(key: str, label: str, style: str) -> Row:
    return [(key, "faint" if style == "faint" else "key"), (f" {label}  ", style)]
