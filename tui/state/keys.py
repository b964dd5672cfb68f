"""The single registry of keys: the source of bindings, key bar, palette, help and the README's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainer.run.status import RunState
from trainer.run.view.run_view import RunView

_STEERABLE = frozenset({RunState.TRAINING, RunState.EVALUATING, RunState.PAUSED})
_WITH_SESSION = _STEERABLE | {RunState.FINISHED}
_EVALUABLE = _WITH_SESSION - {RunState.EVALUATING}


@dataclass(frozen=True, kw_only=True)
class ActionContext:
    """State that decides whether an action can act now."""

    view: RunView
    state: RunState  # `lost` included
    can_control: bool
    refusal: str  # why no trainer takes commands
    session_open: bool  # whether a trainer still takes commands, also after the last epoch
    pending: frozenset[str]  # actions that were requested and not yet answered


KEY_NAMES = {
    "question_mark": "?", "delete": "del", "plus": "+", "equals_sign": "=", "minus": "-", "less_than_sign": "<",
    "greater_than_sign": ">", "comma": ",", "full_stop": ".",
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A key with its meaning; in the list of runs its action is the method `action_<name>` of the screen."""

    name: str
    keys: str  # comma-separated, the first is shown
    label: str
    help: str

    @property
    def shown_keys(self) -> list[str]:
        """All keys, as written on a keyboard."""
        return [KEY_NAMES.get(key, key) for key in self.keys.split(",")]

    @property
    def key(self) -> str:
        return self.shown_keys[0]

    @property
    def action(self) -> str:
        """What the key calls, in the syntax of bindings."""
        return self.name


@dataclass(frozen=True)
class Action(Key):
    """Action of a key; its name is that in `tui.app.run_keys` or of the screen's curve keys, and the id of the binding."""

    refusal: Callable[[ActionContext], str] = lambda _: ""  # returns why it cannot act in a situation, empty if it can
    short: str = ""  # label where not all labels fit; empty for the label itself
    bar: int = 0  # priority in the key bar: 1 is placed first, 2 if there is room, 0 never
    on_screen: bool = False  # whether it is a method of the dashboard, not of the application

    @property
    def action(self) -> str:
        return f"screen.curves('{self.name}')" if self.on_screen else f"key('{self.name}')"


def _command(name: str, states: frozenset[RunState]) -> Callable[[ActionContext], str]:
    def refusal(now: ActionContext) -> str:
        if not now.can_control:
            return now.refusal
        if name in now.pending:
            return "already requested; it acts at the next step"
        if now.state not in states or (now.state is RunState.FINISHED and not now.session_open):
            return f"not while the run is {now.state.value}"
        return ""

    return refusal


def _export(now: ActionContext) -> str:
    return _command("export", _WITH_SESSION)(now) or ("an export is under way" if now.view.exporting else "")


def lr_range_test_is_running(now: ActionContext) -> bool:
    """Whether a learning-rate range test is running; the same key stops it."""
    return now.can_control and now.state is RunState.EVALUATING and now.view.state_detail == "learning rates"


def _find_lr(now: ActionContext) -> str:
    if lr_range_test_is_running(now):
        return ""
    return _command("find_lr", frozenset({RunState.TRAINING, RunState.PAUSED}))(now)


def _back(now: ActionContext) -> str:
    if now.view.diverged is None or not now.view.diverged.checkpoint:
        return "only after non-finite steps, with a checkpoint before them"
    return _command("go_back", _STEERABLE)(now)


def _unfreeze(now: ActionContext) -> str:
    if now.view.frozen is None or not now.view.frozen.stages:
        return "nothing is frozen"
    return _command("unfreeze", _STEERABLE)(now)


def _detach(now: ActionContext) -> str:
    ended = now.state in (RunState.FINISHED, RunState.FAILED, RunState.LOST)
    return f"the run is {now.state.value}; q leaves it" if ended else ""


ACTIONS: tuple[Action, ...] = (
    Action("pause", "p", "pause", "Pause at the next step, or continue.", _command("pause", _STEERABLE), bar=1),
    Action("checkpoint", "c", "save", "Save a checkpoint now; rotation keeps it.", _command("checkpoint", _WITH_SESSION), bar=1),
    Action("evaluate", "e", "evaluate", "Evaluate on the held-out images now.", _command("evaluate", _EVALUABLE), bar=1),
    Action(
        "export", "x", "export",
        "Save this step and export it to ONNX, checked against the model; after training, the best checkpoint.",
        _export, bar=1,
    ),
    Action(
        "learning_rate", "l", "learning rate",
        "Set or scale (x0.5) the next step's learning rate; the schedule scales with it. In the dialog, ctrl+z undoes.",
        _command("learning_rate", _STEERABLE), short="LR", bar=1,
    ),
    Action(
        "plan", "a", "plan", "More or fewer epochs; how often the run evaluates and saves.",
        _command("plan", _STEERABLE), bar=2,
    ),
    Action(
        "note", "n", "note", "Add a note to the run: in the log, and at its step below the curves.",
        _command("note", _WITH_SESSION), bar=2,
    ),
    Action(
        "find_lr", "f", "find LR",
        "Try learning rates on a copy of the state, or stop the test; then enter applies the suggestion.", _find_lr, bar=2,
    ),
    Action("go_back", "b", "go back", "Return to the checkpoint before non-finite steps, at half the learning rate.", _back),
    Action("unfreeze", "u", "unfreeze", "Unfreeze one more stage: the frozen one nearest to the classifier.", _unfreeze),
    Action(
        "freeze", "U", "freeze", "Freeze one more stage: the trained one nearest to the image.",
        _command("freeze", _STEERABLE),
    ),
    Action("detach", "d,ctrl+z", "detach", "Leave the screen; training continues.", _detach, bar=1),
    Action("log_scale", "y", "log", "Logarithmic loss axis on or off.", bar=2),
    Action("smoothing", "s", "smooth", "Smoothing of the curves: none, light, strong.", bar=2),
    Action("heat", "h", "heat map", "On pages 7 and 8: which places of a picture speak for its class, on or off."),
    Action("zoom_in", "plus,equals_sign", "closer", "Fewer steps in all curves.", on_screen=True),
    Action("zoom_out", "minus", "wider", "More steps in all curves.", on_screen=True),
    Action("pan_left", "less_than_sign,shift+left", "earlier", "Earlier steps in all curves.", on_screen=True),
    Action("pan_right", "greater_than_sign,shift+right", "later", "Later steps in all curves.", on_screen=True),
    Action("cursor_left", "comma", "read earlier", "Read all curves at an earlier step; on a page also left.", on_screen=True),
    Action(
        "cursor_right", "full_stop", "read later",
        "Read all curves at a later step; past the end, the newest; on a page also right.", on_screen=True,
    ),
    Action("x_axis", "t", "axis", "Count epochs, steps or time below the curves.", bar=2, on_screen=True),
    Action("zoom", "enter", "zoom", "Show the focused pane alone, or all panes again."),
    Action("next_pane", "tab,right,down", "next pane", "Move to the next pane, or to the next page."),
    Action("previous_pane", "shift+tab,left,up", "previous pane", "Move to the previous pane, or to the previous page."),
    Action("runs", "r", "runs", "All runs of the folder: open, compare, resume, delete.", bar=1),
    Action("messages", "m", "messages", "All messages of the run, and what libraries printed (log.txt).", short="msgs", bar=1),
    Action("help", "question_mark", "help", "What the keys do.", bar=1),
    Action("leave", "q,ctrl+c,ctrl+q", "quit", "Stop and save, or detach; leave a run that has ended.", bar=1),
)  # fmt: skip

BY_NAME = {action.name: action for action in ACTIONS}

LIST_ACTIONS: tuple[Key, ...] = (
    Key("open", "enter", "open", "Open the run; one that another process trains can be steered."),
    Key(
        "mark", "space", "compare",
        "Draw its curves together with those of others, and below those of the dashboard that the list was opened from.",
    ),
    Key("resume", "r", "resume", "Resume a run that is not running."),
    Key("delete", "delete,backspace", "delete", "Delete the run and its files, after confirmation."),
    Key("leave", "q,escape,ctrl+c,ctrl+q", "back", "Back to where you came from."),
)  # fmt: skip
