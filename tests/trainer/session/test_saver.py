"""Saves of a session, with both sides of each condition, and the rollback after non-finite steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.small_session import EVERY_S, Small, full_disk, set_clock, small_session
from trainer.errors import CheckpointError, DiskError
from trainer.run.log.result_events import CheckpointFailed, CheckpointSaved
from trainer.run.log.run_events import Diverged, LrEdited, Resumed, Warned
from trainer.session import saver as saver_module
from trainer.session.checkpoint_writer import CheckpointWriter
from trainer.session.rollback import Rollback, divergence_error
from trainer.training.callbacks import DivergedError
from trainer.training.snapshot import Snapshot


@pytest.fixture(name="session")
def _session(tmp_path: Path) -> Iterator[Small]:
    with small_session(tmp_path / "run") as session:
        yield session


@pytest.mark.parametrize(
    ("age", "skipped", "found_bad", "due"),
    [
        (EVERY_S, None, None, True), (EVERY_S - 0.001, None, None, False), (EVERY_S + 100, None, None, True),
        (EVERY_S, 7, None, False),  # the newest steps are non-finite
        (EVERY_S, None, 7, False),  # the same, known only once the metrics are drained
    ],
)  # fmt: skip
def test_a_save_is_due_when_the_last_one_is_old_and_the_state_is_finite(
    session: Small,
    monkeypatch: pytest.MonkeyPatch,
    age: float,
    skipped: int | None,
    found_bad: int | None,
    due: bool,
) -> None:
    clock = set_clock(monkeypatch)
    session.trainer.last_save = clock.now - age
    session.trainer.skipped_from, session.trainer.found_bad = skipped, found_bad
    assert session.saver.due(session.trainer) is due


def test_a_save_contains_the_current_state_and_counts_its_time(session: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch)
    clock.now = 5000.0
    session.trainer.stopwatch.switch("compute")
    session.trainer.state.loss_scale.enabled = True
    session.trainer.found_bad = 6
    session.save(2)
    session.save(5, best=True)
    session.save(8, pinned=True)
    assert session.trainer.last_save == 5000.0
    assert session.trainer.stopwatch.switch("data") == "compute"
    assert session.meta(8)["choices"]["micro_batches"] == 2
    assert session.meta(8)["loss_scale"] == [4096.0, 0.0]
    assert session.saver.folder.rollback_step == 5, "the newest step before the non-finite ones"
    saved = [(event.step, event.best, event.pinned) for event in session.logged if isinstance(event, CheckpointSaved)]
    assert saved == [(2, False, False), (5, True, False), (8, False, True)]


def test_earlier_steps_are_listed_newest_first(session: Small) -> None:
    for step in (1, 4, 6):
        session.save(step)
    assert session.saver.steps_before(None) == []
    assert session.saver.steps_before(1) == []
    assert session.saver.steps_before(6) == [4, 1]
    assert session.saver.steps_before(7) == [6, 4, 1]


def test_checkpoints_after_a_step_are_set_aside(session: Small) -> None:
    for step in (1, 4, 6):
        session.save(step)
    session.saver.set_aside_after(4)
    assert session.saver.folder.steps() == [1, 4]
    assert session.saver.folder.at(6).with_suffix(".given-up").is_file()
    assert session.saver.folder.pointer("latest") == session.saver.folder.at(4)


def never(*_: object) -> bool:
    return False


def saved(session: Small) -> list[int]:
    return [event.step for event in session.logged if isinstance(event, CheckpointSaved)]


def fail_waits_for_unknown_steps(monkeypatch: pytest.MonkeyPatch, session: Small) -> None:
    """Fail a wait for a step that was not handed to the writer: it would last two minutes."""
    known: set[int] = set()
    writer = session.saver._writer
    submit, found, wait_for = writer.submit, writer.mark_written, writer.wait_for

    def note_submit(snapshot: Snapshot, **wanted: bool) -> None:
        known.add(snapshot.step)
        submit(snapshot, **wanted)

    def note_found(step: int) -> None:
        known.add(step)
        found(step)

    def wait(step: int, timeout: float) -> str | None:
        assert step in known
        return wait_for(step, timeout)

    for name, replacement in (("submit", note_submit), ("mark_written", note_found), ("wait_for", wait)):
        monkeypatch.setattr(writer, name, replacement)


def test_the_last_state_is_saved_once(session: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_waits_for_unknown_steps(monkeypatch, session)
    session.trainer.state.step = 3
    session.saver.save_final(session.trainer, never, never)
    assert saved(session) == [3]
    session.saver.save_final(session.trainer, never, never)
    assert saved(session) == [3]
    session.saver.mark_stale()  # the state has changed in another way
    session.saver.save_final(session.trainer, never, never)
    assert saved(session) == [3, 3]
    session.trainer.state.step = 4
    session.saver.save_final(session.trainer, never, never)
    assert saved(session) == [3, 3, 4]
    session.trainer.state.step = 5
    session.saver.resumed_from(5)
    session.saver.save_final(session.trainer, never, never)
    assert saved(session) == [3, 3, 4], "the resumed step is already on the disk"


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "3.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_with_one_non_finite_value_is_not_saved(session: Small, name: str, value: float) -> None:
    with torch.no_grad():
        session.trainer.state.model.state_dict()[name].view(-1)[-1] = value
    with pytest.raises(DivergedError, match="the weights are NaN or infinite after step 0, so they are not saved"):
        session.saver.save_final(session.trainer, never, never)
    assert saved(session) == []


@pytest.mark.parametrize("patience", [0, 2])
def test_a_full_disk_is_tried_twice_and_then_on_request(
    session: Small, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    monkeypatch.setattr(CheckpointWriter, "_check_space", full_disk)
    problems: list[str] = []

    def try_again(problem: str) -> bool:
        problems.append(problem)
        return len(problems) <= patience

    session.trainer.state.step = 3
    with pytest.raises(DiskError, match="step 3 could not be saved: No space left on device"):
        session.saver.save_final(session.trainer, try_again, never)
    assert len(session.events_of(CheckpointFailed)) == 2 + patience
    assert len(problems) == patience + 1
    with pytest.raises(DiskError):
        session.saver.save_final(session.trainer, lambda _: True, never)
    assert len(session.events_of(CheckpointFailed)) == 2 + patience, "not tried again"


def test_a_write_that_takes_too_long_is_an_error(session: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CheckpointWriter, "wait_for", lambda *_: None)
    clock = set_clock(monkeypatch)
    session.trainer.state.step = 3

    def given_up() -> bool:
        clock.now += 50.0
        return False

    with pytest.raises(DiskError, match="not written within 120 s"):
        session.saver.save_final(session.trainer, never, given_up)
    assert session.saver.wait_for(3) == "not written within 120 s"


def test_the_wait_for_a_write_can_be_given_up(session: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CheckpointWriter, "wait_for", lambda *_: None)
    session.trainer.state.step = 3
    with pytest.raises(DiskError, match="the disk has not responded yet"):
        session.saver.save_final(session.trainer, lambda _: True, lambda: True)


def test_the_best_is_read_from_the_disk_or_an_error(session: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    session.save(2, best=True)
    session.save(3)
    assert session.saver.saved_best(2).step == 2
    monkeypatch.setattr(CheckpointWriter, "_check_space", full_disk)
    session.trainer.state.step = 4
    session.saver.save(session.trainer, best=True)
    with pytest.raises(CheckpointError, match="No space left on device"):
        session.saver.saved_best(4)
    assert session.saver.saved_best(2).step == 2


# Rollback -------------------------------------------------------------------------------------------------------------


def held(session: Small, *saved_at: int, skipped_from: int = 6, step: int = 9) -> Rollback:
    """A run held after non-finite steps, with checkpoints of some steps."""
    for one in saved_at:
        session.save(one)
    session.trainer.state.step = step
    session.trainer.skipped_from = session.trainer.found_bad = skipped_from
    session.logged.clear()
    return Rollback(session.saver, session.logged.append)


@pytest.mark.parametrize(("saved_at", "name"), [((2, 5, 6), "step-00000005.safetensors"), ((6, 7), ""), ((), "")])
def test_the_offer_of_a_rollback_names_the_newest_checkpoint_before_bad_steps(
    session: Small, saved_at: tuple[int, ...], name: str
) -> None:
    held(session, *saved_at).offer(9, 6)
    assert session.logged == [Diverged(step=9, in_a_row=4, checkpoint=name)]


def test_a_rollback_restores_the_newest_good_checkpoint_at_half_the_rate(session: Small) -> None:
    rollback = held(session, 2, 5, 7)
    assert rollback.perform(session.trainer) == ""
    state = session.trainer.state
    assert (state.step, state.schedule.at(5)) == (5, 0.05)
    (resumed,), (edited,) = session.events_of(Resumed), session.events_of(LrEdited)
    assert resumed == Resumed(step=5, epoch=0, checkpoint="step-00000005.safetensors", lr_edits=[])
    assert edited == LrEdited(step=5, factor=0.5, lr=0.05)
    assert session.saver.wait_for(5) == ""
    assert session.meta(5)["lr_edits"] == [(5, 0.5)]
    assert session.saver.folder.steps() == [2, 5], "step 7 is set aside"


def test_a_rollback_skips_a_damaged_checkpoint(session: Small) -> None:
    rollback = held(session, 2, 5)
    path = session.saver.folder.at(5)
    path.write_bytes(path.read_bytes()[:-1])
    assert rollback.perform(session.trainer) == ""
    assert session.trainer.state.step == 2
    (warned,) = session.events_of(Warned)
    assert isinstance(warned, Warned)
    assert warned.message.startswith(f"skipped checkpoint {path}: damaged")


@pytest.mark.parametrize(("saved_at", "skipped_from"), [((), 6), ((6, 7), 6), ((2, 5), None)])
def test_no_rollback_without_a_checkpoint_before_bad_steps(
    session: Small, saved_at: tuple[int, ...], skipped_from: int | None
) -> None:
    rollback = held(session, *saved_at)
    session.trainer.skipped_from = skipped_from
    assert "needs non-finite steps (NaN/Inf)" in rollback.perform(session.trainer)
    assert session.trainer.state.step == 9
    assert session.logged == []


def test_a_rollback_continues_where_later_checkpoints_cannot_be_set_aside(
    session: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollback = held(session, 2, 5)
    monkeypatch.setattr(session.saver, "set_aside_after", full_disk)
    assert rollback.perform(session.trainer) == ""
    (warned,) = session.events_of(Warned)
    assert isinstance(warned, Warned)
    assert "some checkpoints after step 5 could not be set aside: No space left on device" in warned.message
    assert session.saver.wait_for(5) == ""
    assert session.meta(5)["lr_edits"] == [(5, 0.5)]


def test_a_rollback_is_refused_while_a_checkpoint_is_written(session: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    rollback = held(session, 2)
    monkeypatch.setattr(saver_module, "_IDLE_S", 0.01)
    monkeypatch.setattr(CheckpointWriter, "wait_until_idle", lambda *_: False)
    assert rollback.perform(session.trainer) == "a checkpoint is still being written; try again"
    assert session.trainer.state.step == 9


@pytest.mark.parametrize(
    ("best_at", "best_step", "expected", "pointed_to"),
    [(2, 2, (2, 0.5), 2), (2, 3, (3, 0.5), 2), (7, 2, (2, 0.5), 2), (7, 3, (-1, None), None)],
    ids=["kept", "newest not written", "earlier one", "none left"],
)
def test_the_best_after_a_rollback_is_an_existing_checkpoint(
    session: Small, best_at: int, best_step: int, expected: tuple[int, float | None], pointed_to: int | None
) -> None:
    state = session.trainer.state
    state.best.step, state.best.accuracy, state.best.improved_step = best_step, 0.5, best_step
    session.save(2, best=best_at == 2)
    session.save(7, best=best_at == 7)
    rollback = held(session)
    assert rollback.perform(session.trainer) == ""
    assert (state.best.step, state.best.accuracy) == expected
    folder = session.saver.folder
    assert folder.pointer("best") == (None if pointed_to is None else folder.at(pointed_to))


def test_an_end_without_rollback_counts_the_steps_and_names_the_rate(session: Small) -> None:
    for step in (8, 9):
        session.trainer.state.schedule.edit(step, 0.5)
    error = str(divergence_error(session.trainer, 9, 6))
    assert "4 steps in a row up to step 9 had a NaN or infinite loss" in error
    assert "(learning rate 0.05)" in error, "that of step 9, whose index is 8"
