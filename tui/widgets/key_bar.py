"""Keys and their actions, as many as fit; those that cannot act now are dimmed. A message may replace them."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len
from rich.text import Text

from trainer.run.status import LIVE_STATES
from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.state.keys import ACTIONS, Action, ActionContext, lr_range_test_is_running
from tui.widgets.pane import Pane

_GAP = 2  # cells between two entries


class KeyBar(Pane, can_focus=False):
    """The last line: the keys, or `message` when it is not empty; `situation` is called at each drawing."""

    def __init__(self, situation: Callable[[], ActionContext], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.situation = situation
        self.message = ""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        if self.message:
            return [[(" " + fmt.fit(fmt.printable(self.message), width - 2), "warn")]]
        now = self.situation()
        short = {action.name: action.short or action.label for action in ACTIONS}
        labels = {action.name: action.label for action in ACTIONS}
        for names in (short, labels):
            names["pause"] = "resume" if now.view.paused else "pause"
            names["find_lr"] = "stop" if lr_range_test_is_running(now) else names["find_lr"]
            names["messages"] += f" +{scene.unseen_output}" if scene.unseen_output else ""
        shown = _chosen(now, short, width - 1, keep=["messages"] if scene.unseen_output else [])
        row: Row = [(" ", "text")]
        for action in shown:
            if _size(shown, short | {action.name: labels[action.name]}) <= width - 1:
                short[action.name] = labels[action.name]  # written out as far as there is room, from the left
            style = "warn" if action.name == "messages" and scene.unseen_output else "dim"
            style = "faint" if action.refusal(now) else style
            if action is not shown[0]:
                row.append((" " * _GAP, "text"))
            row += [(action.key, "faint" if style == "faint" else "key"), (f" {short[action.name]}", style)]
        return [row]


def _chosen(now: ActionContext, labels: dict[str, str], room: int, keep: list[str]) -> list[Action]:
    """The actions that fit and may ever act in this run, in the registry's order; always those to `keep`, and the last two."""
    steerable = now.can_control and now.state in LIVE_STATES
    possible = [action for action in ACTIONS if action.bar and (steerable or not action.refusal(now))]
    first = [*keep, *(action.name for action in possible[-2:])]
    chosen: list[Action] = []
    for action in sorted(possible, key=lambda action: (action.name not in first, action.bar)):
        if _size([*chosen, action], labels) <= room:
            chosen.append(action)
    return [action for action in possible if action in chosen]


def _size(actions: list[Action], labels: dict[str, str]) -> int:
    return sum(cell_len(f"{action.key} {labels[action.name]}") + _GAP for action in actions) - _GAP


def key_line(*keys: tuple[str, str]) -> Text:
    """The keys of a screen without a key bar, in order, each with its action."""
    return Text.assemble(" ", *(part for key, word in keys for part in ((key, "bold"), (f" {word}   ", "dim"))))
