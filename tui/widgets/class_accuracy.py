"""Held-out accuracy of each class: bar, number, change since the last evaluation, worst first."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.run.events import Evaluated
from trainer.run.view import RunView
from tui import format as fmt
from tui.bars import bar
from tui.canvas import Row
from tui.scene import Scene
from tui.widgets.pane import Pane


@dataclass(frozen=True)
class ClassScore:
    """One class.

    Attributes:
        accuracy: None where the split holds no image of it.
        change: Since the evaluation before; None without one.
    """

    name: str
    accuracy: float | None
    change: float | None
    count: int


class ClassPane(Pane):
    """The per-class table."""

    def rows_for(self, scene: Scene, width: int, height: int) -> list[Row]:
        """The whole pane."""
        view = scene.view
        last = view.last_evaluation
        title = f"Per-class {view.selection_split} accuracy"
        if last is None:
            body: list[Row] = [[(waiting_text(scene), "dim")]]
            return self.frame(scene.glyphs, title, [], body, width, height)
        room = height - 2
        scores = class_scores(view)
        body = class_rows(scene, scores[:room], width - 4)
        hidden = max(len(scores) - room, 0)
        bottom = f"worst first{f', {hidden} more' if hidden else ''}"
        right: Row = [(f"epoch {round(last.epoch, 2):g}", "dim")]
        return self.frame(scene.glyphs, title, right, body, width, height, bottom=bottom)


def waiting_text(scene: Scene) -> str:
    """What an empty table says."""
    started = scene.view.started
    every = 1
    if scene.view.opened:
        every = int(scene.view.opened.config.get("eval", {}).get("every_epochs", 1))
    return f"first evaluation after epoch {min(every, started.epochs) if started else every}"


def class_scores(view: RunView) -> list[ClassScore]:
    """All classes, the worst first; those without images last."""
    last, before = view.last_evaluation, view.previous_evaluation
    if last is None or view.started is None:
        return []
    scores = [_score(view.started.classes[label], label, last, before) for label in range(len(last.counts))]
    return sorted(scores, key=lambda score: (score.accuracy is None, score.accuracy or 0.0))


def class_rows(scene: Scene, scores: list[ClassScore], width: int) -> list[Row]:
    """A row a class."""
    label_width = min(max((len(fmt.literal(score.name)) for score in scores), default=0), max(width // 3, 6))
    bar_width = max(width - label_width - 14, 3)
    return [_score_row(scene, score, label_width, bar_width) for score in scores]


def _score(name: str, label: int, last: Evaluated, before: Evaluated | None) -> ClassScore:
    count = last.counts[label]
    accuracy = last.correct[label] / count if count else None
    change = None
    if accuracy is not None and before and before.counts[label]:
        change = accuracy - before.correct[label] / before.counts[label]
    return ClassScore(name, accuracy, change, count)


def _score_row(scene: Scene, score: ClassScore, label_width: int, bar_width: int) -> Row:
    name = fmt.fit(fmt.literal(score.name), label_width)
    if score.accuracy is None:
        return [(name, "dim"), (" no images", "dim")]
    row: Row = [(name, "text"), (" ", "text"), *bar(score.accuracy, bar_width, scene.glyphs, "test")]
    row.append((f" {fmt.percent(score.accuracy):>5}", "text"))
    if score.change is not None and abs(score.change) >= 0.0005:
        rising = score.change > 0
        glyph = scene.glyphs.up if rising else scene.glyphs.down
        row.append((f" {glyph}{abs(100 * score.change):.1f}", "good" if rising else "warn"))
    return row
