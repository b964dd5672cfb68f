"""The single registry of keys: the source of bindings, key bar, palette, help and the README's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainer.run.status import RunState
from trainer.run.view.run_view import RunView

_STEERABLE = frozenset({RunState.TRAINING, RunState.EVALUATING, RunState.PAUSED})
_WITH_SESSION = _STEERABLE | {RunState.FINISHED}


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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Action(Key):
    """Action of a key; its name is that in `tui.app.run_keys` or of the screen's curve keys, and the id of the binding."""

    refusal: Callable[[ActionContext], str] = lambda _: ""  # returns why it cannot act in a situation, empty if it can
    short: str = ""  # label where not all labels fit; empty for the label itself
    bar: int = 0  # priority in the key bar: 1 is placed first, 2 if there is room, 0 never
    on_screen: bool = False  # whether it is a method of the dashboard, not of the application


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
    Action(
        name="pause", keys="p", label="pause", help="Pause at the next step, or continue.",
        refusal=_command("pause", _STEERABLE), bar=1,
    ),
    Action(
        name="checkpoint", keys="c", label="save", help="Save a checkpoint now; rotation keeps it.",
        refusal=_command("checkpoint", _WITH_SESSION), bar=1,
    ),
    Action(
        name="evaluate", keys="e", label="evaluate", help="Evaluate on the held-out images now.",
        refusal=_command("evaluate", frozenset({RunState.TRAINING, RunState.PAUSED, RunState.FINISHED})), bar=1,
    ),
    Action(
        name="export", keys="x", label="export",
        help="Save this step and export it to ONNX, checked against the model; after training, the best checkpoint.",
        refusal=_export, bar=1,
    ),
    Action(
        name="learning_rate", keys="l", label="learning rate", short="LR",
        help="Set or scale (x0.5) the next step's learning rate; the schedule scales with it. In the dialog, ctrl+z undoes.",
        refusal=_command("learning_rate", _STEERABLE), bar=1,
    ),
    Action(
        name="plan", keys="a", label="plan", help="More or fewer epochs; how often the run evaluates and saves.",
        refusal=_command("plan", _STEERABLE), bar=2,
    ),
    Action(
        name="note", keys="n", label="note", help="Add a note to the run: in the log, and at its step below the curves.",
        refusal=_command("note", _WITH_SESSION), bar=2,
    ),
    Action(
        name="find_lr", keys="f", label="find LR",
        help="Try learning rates on a copy of the state, or stop the test; then enter applies the suggestion.",
        refusal=_find_lr, bar=2,
    ),
    Action(
        name="go_back", keys="b", label="go back",
        help="Return to the checkpoint before non-finite steps, at half the learning rate.",
        refusal=_back,
    ),
    Action(
        name="unfreeze", keys="u", label="unfreeze", help="Unfreeze one more stage: the frozen one nearest to the classifier.",
        refusal=_unfreeze,
    ),
    Action(
        name="freeze", keys="U", label="freeze", help="Freeze one more stage: the trained one nearest to the image.",
        refusal=_command("freeze", _STEERABLE),
    ),
    Action(
        name="detach", keys="d,ctrl+z", label="detach", help="Leave the screen; training continues.",
        refusal=_detach, bar=1,
    ),
    Action(name="log_scale", keys="y", label="log", help="Logarithmic loss axis on or off.", bar=2),
    Action(name="smoothing", keys="s", label="smooth", help="Smoothing of the curves: none, light, strong.", bar=2),
    Action(
        name="zoom_in", keys="plus,equals_sign", label="closer", help="Fewer steps in all curves.", on_screen=True,
    ),
    Action(
        name="zoom_out", keys="minus", label="wider", help="More steps in all curves.", on_screen=True,
    ),
    Action(
        name="pan_left", keys="less_than_sign,shift+left", label="earlier", help="Earlier steps in all curves.",
        on_screen=True,
    ),
    Action(
        name="pan_right", keys="greater_than_sign,shift+right", label="later", help="Later steps in all curves.",
        on_screen=True,
    ),
    Action(
        name="cursor_left", keys="comma", label="read earlier",
        help="Read all curves at an earlier step; on a page also left.", on_screen=True,
    ),
    Action(
        name="cursor_right", keys="full_stop", label="read later",
        help="Read all curves at a later step; past the end, the newest; on a page also right.", on_screen=True,
    ),
    Action(
        name="x_axis", keys="t", label="axis", help="Count epochs, steps or time below the curves.", bar=2, on_screen=True,
    ),
    Action(
        name="zoom", keys="enter", label="zoom", help="Show the focused pane alone, or all panes again.",
    ),
    Action(
        name="next_pane", keys="tab,right,down", label="next pane", help="Move to the next pane, or to the next page.",
    ),
    Action(
        name="previous_pane", keys="shift+tab,left,up", label="previous pane",
        help="Move to the previous pane, or to the previous page.",
    ),
    Action(name="runs", keys="r", label="runs", help="All runs of the folder: open, compare, resume, delete.", bar=1),
    Action(
        name="messages", keys="m", label="messages", short="msgs",
        help="All messages of the run, and what libraries printed (log.txt).", bar=1,
    ),
    Action(name="help", keys="question_mark", label="help", help="What the keys do.", bar=1),
    Action(
        name="leave", keys="q,ctrl+c,ctrl+q", label="quit", help="Stop and save, or detach; leave a run that has ended.", bar=1,
    ),
)  # fmt: skip

BY_NAME = {action.name: action for action in ACTIONS}


LIST_ACTIONS: tuple[Key, ...] = (
    Key(
        name="open", keys="enter", label="open", help="Open the run; one that another process trains can be steered."
    ),
    Key(
        name="mark", keys="space", label="compare",
        help="Draw its curves together with those of others, and below those of the dashboard that the list was opened from.",
    ),
    Key(name="resume", keys="r", label="resume", help="Resume a run that is not running."),
    Key(name="delete", keys="delete,backspace", label="delete", help="Delete the run and its files, after confirmation."),
    Key(name="leave", keys="q,escape,ctrl+c,ctrl+q", label="back", help="Back to where you came from."),
)  # fmt: skip
