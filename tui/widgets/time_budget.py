"""Shares of the run's time by activity, with a verdict in words."""

from __future__ import annotations

from trainer.run.diagnosis.resource_rules import WAITING_SHARE
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.state.pages import hint
from tui.widgets.pane import Pane

_STYLES = {"compute": "train", "evaluate": "test", "data": "warn", "save": "dim"}
_SOME_WAIT = 0.05
_PAGES = "  ".join(hint(name) for name in ("training", "network", "layers"))
"""Pages without a pane in the overview, whose keys would be shown nowhere else."""


class TimePane(Pane):
    """Shares of compute, evaluation, data wait and saving."""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        shares, bottom = time_shares(scene), "" if self.has_class("zoomed") else _PAGES
        if not shares:
            return self.notice(scene, "Time", "measured from the first step on", width, height, bottom)
        words: Row = []
        for name, share in shares.items():
            style = "dim" if name == "data" and share < _SOME_WAIT else _STYLES[name]
            words += [(f"  {name} ", "dim"), (f"{100 * share:2.0f} %", style)]
        verdict = _verdict(shares)
        used = sum(len(text) for text, _ in words)
        room = width - 4 - used
        remark = [(f"   {verdict[0]}", verdict[1])] if room - len(verdict[0]) - 3 >= 4 else []
        body: Row = [*_stacked(scene, shares, room - sum(len(text) for text, _ in remark)), *words, *remark]
        return self.frame(scene.glyphs, "Time", _utilization(scene), [body], width, height, bottom=bottom)


def _utilization(scene: DisplayState) -> Row:
    """Utilisation of a GPU, shown with the time that it waits."""
    busy = scene.view.readings.get("utilization_pct")
    return [] if busy is None or scene.at_rest else [("GPU ", "dim"), (f"{busy:.0f} %", "text")]


def time_shares(scene: DisplayState) -> dict[str, float]:
    """Share of each activity, largest first; empty before the first step."""
    budget = scene.view.budget
    total = sum(budget.values())
    if total <= 0:
        return {}
    return {name: budget.get(name, 0.0) / total for name in sorted(_STYLES, key=lambda name: -budget.get(name, 0.0))}


def _stacked(scene: DisplayState, shares: dict[str, float], width: int) -> Row:
    row: Row = []
    left, done = width, 0.0
    for name, share in shares.items():
        done += share
        cells = min(round(done * width) - (width - left), left)
        row.append((scene.glyphs.bar * cells, _STYLES[name]))
        left -= cells
    return row


def _verdict(shares: dict[str, float]) -> tuple[str, str]:
    waiting = shares.get("data", 0.0)
    if waiting >= WAITING_SHARE:
        return "waits for data: more data.workers", "warn"
    return ("some waiting for data", "dim") if waiting >= _SOME_WAIT else ("no wait for data", "dim")
