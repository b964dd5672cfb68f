"""The run on small terminals: sparklines with numbers, the worst classes, and a message where nothing else fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.state.pages import PAGE_BY_NAME
from tui.widgets.class_accuracy import class_rows, waiting_text
from tui.widgets.events_list import verdict_row
from tui.widgets.header import problem_row, progress_bar, silence_row, state_row
from tui.widgets.lr_pane import lr_figures
from tui.widgets.memory import facts, memory_figures
from tui.widgets.pane import Pane

if TYPE_CHECKING:
    from tui.drawing.pyramid import Pyramid


class SparkPane(Pane, can_focus=False):
    """Learning rate, memory and throughput in one line each (80x24)."""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        view = scene.view
        half = max(width // 2, 10)
        total = float(max(view.total_steps, 1))
        done = round(half * min(view.step / total, 1.0))
        curve = _spark(scene, scene.planned_pyramid(), total, half) if view.started else " " * half
        memory = memory_figures(scene) or [("no reading yet", "dim")]
        budget = view.budget
        spent = sum(budget.values())
        share = f"   data wait {budget.get('data', 0.0) / spent:.0%}" if spent else ""
        rate: Row = [(" LR      ", "dim"), (curve[:done], "train"), (curve[done:], "faint"), ("  ", "text")]
        return [
            [*rate, *lr_figures(scene, cursor=False)],
            [(" memory  ", "dim"), *memory, (f"   {facts(scene)}", "dim")],
            [(" speed   ", "dim"), (fmt.per_second(scene.images_per_s), "text"), (share, "dim")],
        ]


class WorstPane(Pane, can_focus=False):
    """The worst classes without a border (80x24)."""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        results, room = scene.class_results, height - 1
        key = PAGE_BY_NAME["classes"].key
        title: Row = [(f" {key}", "key"), (f" Per-class {scene.view.selection_split} accuracy, worst first", "title")]
        if not results:
            return [title, [(f" {waiting_text(scene)}", "dim")]]
        if len(results) > room:
            title.append((f"  {len(results) - room} more below", "dim"))
        return [title, *([(" ", "text"), *row] for row in class_rows(scene, results[:room], width - 2))]


class CompactPane(Pane, can_focus=False):
    """The essential figures in 40x11."""

    follows_clock = True

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        view = scene.view
        if scene.behind:
            return [state_row(scene)]
        done = view.step / view.total_steps if view.total_steps else 0.0
        epochs = view.started.epochs if view.started else "?"
        rows: list[Row] = [
            [*state_row(scene), (f"  epoch {view.epoch}/{epochs}", "text")],
            [*progress_bar(done, max(width - 14, 4), scene.glyphs), (f"  ETA {fmt.duration(scene.eta_s)}", "text")],
        ]
        if view.failure:
            rows.append([(fmt.fit(fmt.printable(view.failure.error.partition("\n")[0]), width), "bad")])
        rows += [row for row in (silence_row(scene, width), problem_row(scene), verdict_row(scene, width)) if row]
        rows += [self._curve(scene, "loss", width), self._curve(scene, "accuracy", width)]
        last = view.last_evaluation
        if last:
            best = f"  {view.best_name} {fmt.percent(view.best.accuracy)}" if view.best else ""
            rows.append([(f"{last.split} {fmt.number(last.loss)}  {fmt.percent(last.accuracy)} %{best}", "test")])
        speed = f"  {fmt.per_second(scene.images_per_s)}"
        rows.append([("LR ", "dim"), *lr_figures(scene, cursor=False), (speed, "dim")])
        results = scene.class_results
        rows += class_rows(scene, results[: max(height - len(rows) - 1, 1)], width) or [[(waiting_text(scene), "dim")]]
        if view.notes:
            rows.append([(fmt.fit(fmt.printable(view.notes[-1].text), width), "dim")])
        return rows

    def _curve(self, scene: DisplayState, name: str, width: int) -> Row:
        shown = scene.shown_name(name)
        value = scene.series(shown).last
        figure = fmt.percent(value) if name == "accuracy" else fmt.number(value)
        room, step = max(width - 16, 4), scene.view.step
        line = _spark(scene, scene.pyramid(shown), float(step), room) if step else " " * room
        return [(fmt.fit(name, 9), "dim"), (line, "train"), (f" {figure:>6}", "text")]


def _spark(scene: DisplayState, pyramid: Pyramid, right: float, width: int) -> str:
    from tui.drawing.sparkline import sparkline

    return sparkline(pyramid, 0.0, right, width, scene.glyphs)


class TooSmallPane(Pane, can_focus=False):
    """A message for a terminal that is too small for anything else."""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        view = scene.view
        lines = [scene.word, f"{view.step:,}/{view.total_steps:,}", "terminal too small", "needs 36x10"]
        return [[(fmt.fit(line, width), "text")] for line in lines]
