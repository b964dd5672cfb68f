"""Keys by state of a run: the whole table, written by hand from README and docs/dashboard.md."""

from __future__ import annotations

import itertools

import pytest

from tests.support.canned import diverged
from trainer.run.log.result_events import ExportProgress
from trainer.run.log.run_events import StagesFrozen
from trainer.run.status import RunState
from trainer.run.view.run_view import RunView
from tui.state.keys import ACTIONS, BY_NAME, ActionContext, lr_range_test_is_running

REFUSAL = "this run is not active"

TABLE = """
                    pause save evaluate export lr plan note find back unfreeze freeze detach
loading PyTorch     -     -    -        -      -  -    -    -    -    -        -      +
preparing           -     -    -        -      -  -    -    -    -    -        -      +
training            +     +    +        +      +  +    +    +    +    +        +      +
evaluating          +     +    -        +      +  +    +    -    +    +        +      +
paused              +     +    +        +      +  +    +    +    +    +        +      +
saving              -     -    -        -      -  -    -    -    -    -        -      +
stopping            -     -    -        -      -  -    -    -    -    -        -      +
finished            -     o    o        o      -  -    o    -    -    -        -      -
failed              -     -    -        -      -  -    -    -    -    -        -      -
lost                -     -    -        -      -  -    -    -    -    -        -      -
"""
"""Signs: `+` acts, `-` does not, `o` acts while the session is open."""
NAMES = {
    "pause": "pause", "save": "checkpoint", "evaluate": "evaluate", "export": "export", "lr": "learning_rate", "plan": "plan",
    "note": "note", "find": "find_lr", "back": "go_back", "unfreeze": "unfreeze", "freeze": "freeze", "detach": "detach",
}  # fmt: skip
HEAD, *ROWS = TABLE.strip("\n").splitlines()
SIGNS = {
    (row[:20].strip(), NAMES[column]): sign
    for row in ROWS
    for column, sign in zip(HEAD.split(), row[20:].split(), strict=True)
}


def view_of(*, frozen: bool = True, has_diverged: bool = True) -> RunView:
    """A run in which all keys can act: it has a frozen stage, and a checkpoint before non-finite steps."""
    view = RunView()
    view.frozen = StagesFrozen(step=1, stages=["conv1"] if frozen else [], trainable=1)
    view.diverged = diverged() if has_diverged else diverged(checkpoint="")
    return view


def context_of(
    state: RunState,
    *,
    can_control: bool = True,
    session_open: bool = True,
    view: RunView | None = None,
    pending: str = "",
) -> ActionContext:
    return ActionContext(
        view=view_of() if view is None else view, state=state, can_control=can_control, refusal=REFUSAL,
        session_open=session_open, pending=frozenset({pending} - {""}),
    )  # fmt: skip


def test_the_table_has_every_state_and_every_refusable_key() -> None:
    may_be_refused = {action.name for action in ACTIONS if action.refusal is not BY_NAME["help"].refusal}
    assert may_be_refused == set(NAMES.values())
    assert {state for state, _ in SIGNS} == {state.value for state in RunState}


@pytest.mark.parametrize("state", RunState, ids=lambda state: state.name)
@pytest.mark.parametrize("name", NAMES.values())
def test_a_key_acts_exactly_as_in_the_table(state: RunState, name: str) -> None:
    sign, refusal = SIGNS[state.value, name], BY_NAME[name].refusal
    for can_control, session_open in itertools.product((True, False), repeat=2):
        now = context_of(state, can_control=can_control, session_open=session_open)
        if name == "detach":
            expected = "" if sign == "+" else f"the run is {state.value}; q leaves it"
        elif not can_control:
            expected = REFUSAL
        else:
            acts = sign == "+" or (sign == "o" and session_open)
            expected = "" if acts else f"not while the run is {state.value}"
        assert refusal(now) == expected, now


@pytest.mark.parametrize("name", sorted({*NAMES.values()} - {"detach"}))
def test_a_pending_command_is_not_sent_again(name: str) -> None:
    assert "already requested" in BY_NAME[name].refusal(context_of(RunState.TRAINING, pending=name))
    other = "note" if name != "note" else "pause"
    assert BY_NAME[name].refusal(context_of(RunState.TRAINING, pending=other)) == ""


def test_keys_of_the_screen_always_act() -> None:
    for action in ACTIONS:
        if action.name not in NAMES.values():
            assert not any(
                action.refusal(context_of(state, can_control=False, session_open=False)) for state in RunState
            )


def test_unfreeze_rollback_and_export_are_refused_without_a_target() -> None:
    training, bare = RunState.TRAINING, RunView()
    assert BY_NAME["unfreeze"].refusal(context_of(training, view=bare)) == "nothing is frozen"
    assert BY_NAME["unfreeze"].refusal(context_of(training, view=view_of(frozen=False))) == "nothing is frozen"
    for view in (bare, view_of(has_diverged=False)):
        assert "only after non-finite steps" in BY_NAME["go_back"].refusal(context_of(training, view=view))
    exporting = view_of()
    exporting.exporting = ExportProgress(stage="x", fraction=0.5)
    assert BY_NAME["export"].refusal(context_of(training, view=exporting)) == "an export is under way"
    assert BY_NAME["checkpoint"].refusal(context_of(training, view=exporting)) == ""


def test_the_key_of_the_range_test_also_stops_it() -> None:
    view = view_of()
    view.state_detail = "learning rates"
    assert lr_range_test_is_running(context_of(RunState.EVALUATING, view=view))
    assert BY_NAME["find_lr"].refusal(context_of(RunState.EVALUATING, view=view, pending="find_lr")) == ""
    for other in (
        context_of(RunState.EVALUATING),  # held-out images
        context_of(RunState.TRAINING, view=view),
        context_of(RunState.EVALUATING, view=view, can_control=False),
    ):
        assert not lr_range_test_is_running(other)
    assert BY_NAME["find_lr"].refusal(context_of(RunState.EVALUATING)) == "not while the run is evaluating"
