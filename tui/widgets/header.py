"""Name, model and device of the run, its progress, and its current state."""

from __future__ import annotations

from rich.cells import cell_len

from trainer.run.diagnosis.resource_rules import lines_missing
from trainer.run.status import LIVE_STATES, LOST_AFTER_S, RunState
from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.drawing.glyphs import Glyphs
from tui.state.display_state import DisplayState
from tui.widgets.pane import Pane

_STATE_STYLES = {
    RunState.TRAINING: "good", RunState.PAUSED: "warn", RunState.FAILED: "bad", RunState.LOST: "bad", RunState.FINISHED: "good",
}  # fmt: skip

_STEMS = {"cifar": "CIFAR stem", "cifar-maxpool": "max-pool stem", "imagenet": "ImageNet stem"}


class Header(Pane, can_focus=False):
    """Two lines at the top."""

    follows_clock = True

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        state = [*problem_row(scene), *state_row(scene)]
        state_width = sum(cell_len(text) for text, _ in state)
        identity = _identity(scene, width - state_width - 3)
        gap = max(width - sum(cell_len(text) for text, _ in identity) - state_width - 2, 1)
        return [[(" ", "text"), *identity, (" " * gap, "text"), *state], progress_row(scene, width)]


def state_row(scene: DisplayState) -> Row:
    """The state as a word, with requests that are not yet answered, and other work in progress."""
    view = scene.view
    if scene.behind:
        return [(f"{scene.glyphs.dot} {scene.word}", "accent"), (" ", "text")]
    word = next(iter(scene.pending.values()), "") or scene.word
    if scene.state is RunState.PAUSED and not scene.pending:
        word = f"paused since {fmt.clock(view.paused_since)}"
    if scene.state is RunState.EVALUATING:
        share = f" {view.state_fraction:.0%}" if view.state_fraction is not None else ""
        word += f" {view.state_detail}{share}" if not scene.pending else share
    if scene.state is RunState.SAVING and not scene.pending:
        word = view.state_detail or word
    style = "accent" if scene.pending else _STATE_STYLES.get(scene.state, "accent")
    extra = f"  exporting {view.exporting.fraction:.0%}" if view.exporting else ""
    return [(f"{scene.glyphs.dot} ", style), (word + extra, style), (" ", "text")]


def problem_row(scene: DisplayState) -> Row:
    """Problem with the run's files while it lasts; empty without one."""
    view, live = scene.view, scene.state in LIVE_STATES
    if scene.behind:
        return []
    if live and view.unsaved_since is not None:
        return [(f"not saved since {fmt.clock(view.unsaved_since)}", "bad"), ("  ", "text")]
    if live and view.unlogged_since is not None:
        return [(f"log not written since {fmt.clock(view.unlogged_since)}", "bad"), ("  ", "text")]
    return [(lines_missing(view.bad_records), "warn"), ("  ", "text")] if view.bad_records else []


def progress_row(scene: DisplayState, width: int) -> Row:
    """Epoch, bar, step, throughput, ETA, age of the last step if there is room; or what is being prepared."""
    view = scene.view
    if scene.behind:
        return []
    if view.failure:
        return [(" " + fmt.fit(fmt.printable(view.failure.error.partition("\n")[0]), width - 2), "bad")]
    if scene.state is RunState.LOST:
        silence = f" last event {fmt.age(scene.now - view.last_time)} ago; resume with: {scene.resume_command}"
        return [(fmt.fit(fmt.printable(silence), width), "bad")]
    silent = silence_row(scene, width)
    if silent:
        return silent
    if scene.state in (RunState.LOADING, RunState.PREPARING):
        return _preparing(scene, width)
    epochs = view.started.epochs if view.started else 0
    left = f" epoch {view.epoch}/{epochs} "
    done = view.step / view.total_steps if view.total_steps else 0.0
    speed, eta, age = fmt.per_second(scene.images_per_s), fmt.duration(scene.eta_s), _age(scene)
    right = f"step {view.step:,}/{view.total_steps:,}   {speed}   ETA {eta}"
    if width >= cell_len(left + right + age) + 12:
        right += age
    bar_width = max(width - cell_len(left) - cell_len(right) - 3, 4)
    return [(left, "text"), *progress_bar(done, bar_width, scene.glyphs), (f"  {right} ", "text")]


def silence_row(scene: DisplayState, width: int) -> Row:
    """Why a live run whose process exists sends no events; empty while events arrive."""
    if scene.state not in LIVE_STATES:
        return []
    long = short = ""
    if scene.stopped_pid:
        short = f" stopped; to continue: kill -CONT {scene.stopped_pid}"
        long = f" its process was stopped by a signal; to continue it: kill -CONT {scene.stopped_pid}"
    elif scene.silence_s > LOST_AFTER_S:
        short = f" no events for {fmt.age(scene.silence_s)}; its disk may be full"
        long = f" no events for {fmt.age(scene.silence_s)}, though its process is there: its disk may be full"
    return [(fmt.fit(long if cell_len(long) <= width else short, width), "warn")] if long else []


def progress_bar(done: float, width: int, glyphs: Glyphs) -> Row:
    """A thin bar of `width` cells."""
    filled = round(min(max(done, 0.0), 1.0) * width)
    return [(glyphs.progress * filled, "accent"), (glyphs.progress_rest * (width - filled), "faint")]


def _identity(scene: DisplayState, width: int) -> Row:
    """Program, run, model, precision and device; the least informative parts are dropped first if not all fit."""
    view = scene.view
    name = fmt.printable(view.opened.run) if view.opened else ""
    details = {"hint": scene.control_hint}
    if view.started:
        model, choices = view.started.model, view.started.choices
        stem = _STEMS.get(str(model.get("stem")), "")
        details["model"] = f"ResNet-18, {stem}, {fmt.count(model.get('parameters', 0))}"
        if view.frozen and view.frozen.stages:
            details["frozen"] = f"frozen to {view.frozen.stages[-1]}"
        details["device"] = fmt.printable(str(view.started.device.get("name", "")))
        layout = ", channels_last" if choices.get("channels_last") else ""
        details["precision"] = f"{choices.get('precision', '')}{layout}"
    for dispensable in ("device", "precision", "model", "frozen", "hint"):
        shown = "".join(f" · {detail}" for detail in details.values() if detail)
        if cell_len(f"r18-tui  {name}{shown}") <= width:
            break
        details.pop(dispensable, None)
    else:
        shown = ""
    return [("r18-tui", "title"), (f"  {name}", "text"), (shown, "dim")]


def _preparing(scene: DisplayState, width: int) -> Row:
    view = scene.view
    text, bar = f" {fmt.printable(view.state_detail or scene.state.value)}", []
    if view.state_fraction is not None:
        text += f" {view.state_fraction:4.0%}"
        bar = progress_bar(view.state_fraction, max(min(width // 3, 40), 4), scene.glyphs)
    return [(" ", "text"), *bar, (text, "dim")]


def _age(scene: DisplayState) -> str:
    view = scene.view
    if scene.state not in LIVE_STATES or scene.state is RunState.PAUSED or not view.last_step_time:
        return ""
    return f"   step {fmt.age(scene.now - view.last_step_time)} ago"
