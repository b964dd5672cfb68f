"""The view of a run: the fold of its events."""

from __future__ import annotations

import math

import pytest

from trainer.run.log.codec import encode, event_kinds
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import CheckpointFailed, CheckpointSaved, Evaluated, ExportFailed, Steps
from trainer.run.log.run_events import (
    Acknowledged,
    Finished,
    Gap,
    Heartbeat,
    LogFailed,
    LogRecovered,
    LrEdited,
    Opened,
    Resumed,
    Started,
    StateChanged,
    Warned,
)
from trainer.run.status import LOST_AFTER_S, Presence, RunState
from trainer.run.view.fold import apply, fold_event
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView


def opened(resume: bool = False) -> Opened:
    return Opened(run="r", directory="runs/r", pid=1, host="h", resume=resume, config={})


def started(**changes: object) -> Started:
    fields: dict[str, object] = {
        "classes": ["a", "b"], "splits": {"train": 80, "test": 20}, "selection_split": "test", "fingerprint": "f",
        "model": {"stem": "cifar", "parameters": 11_000_000}, "device": {"name": "cpu"}, "choices": {"precision": "fp32"},
        "epochs": 2, "steps_per_epoch": 10, "total_steps": 20, "planned_lr": [[1.0, 10.0, 11.0, 20.0], [0.1, 0.2, 0.2, 0.0]],
        "versions": {},
    }  # fmt: skip
    return Started(**(fields | changes))  # type: ignore[arg-type]


def steps(first: int, losses: list[float | None], seconds: float = 1.0) -> Steps:
    count = len(losses)
    return Steps(
        first_step=first, loss=losses, accuracy=[0.5] * count, lr=[0.1] * count, images=8 * count, seconds=seconds,
        budget={"compute": 1.0, "data": 0.0, "evaluate": 0.0, "save": 0.0},
    )  # fmt: skip


def evaluated(step: int, accuracy: float, *, best: bool = False, split: str = "test") -> Evaluated:
    return Evaluated(
        split=split, epoch=step / 10, step=step, loss=1.0, accuracy=accuracy, correct=[5, 5], counts=[10, 10], best=best,
        seconds=2.0,
    )  # fmt: skip


def fold(*events: Event, start: int = 0) -> RunView:
    view = RunView()
    for number, event in enumerate(events, start):
        apply(view, Record(seq=number, time=100.0 + number, event=event))
    return view


def test_repeated_records_are_ignored() -> None:
    view = fold(opened(), started(), steps(1, [1.0, 0.9]))
    apply(view, Record(seq=2, time=500.0, event=steps(1, [1.0, 0.9])))
    assert list(view.train_loss.x) == [1.0, 2.0]
    assert view.last_time == 102.0


def test_a_resume_drops_the_abandoned_steps_and_duplicates_nothing() -> None:
    interrupted = fold(
        opened(), started(), steps(1, [1.0, 0.9, 0.8]), evaluated(2, 0.5, best=True), LrEdited(step=2, factor=0.5, lr=0.05),
        steps(4, [0.7, 0.6]), evaluated(5, 0.9, best=True), opened(resume=True), started(),
        Resumed(step=3, epoch=0, checkpoint="c", lr_edits=[[2.0, 0.5]]), steps(4, [0.71, 0.61]),
    )  # fmt: skip
    straight = fold(
        opened(), started(), steps(1, [1.0, 0.9, 0.8]), evaluated(2, 0.5, best=True), LrEdited(step=2, factor=0.5, lr=0.05),
        steps(4, [0.71, 0.61]),
    )  # fmt: skip
    for name in ("train_loss", "train_accuracy", "lr", "eval_accuracy", "evaluations", "best", "lr_edits", "step"):
        assert getattr(interrupted, name) == getattr(straight, name), name
    assert interrupted.smoothed_loss[0.9].y == straight.smoothed_loss[0.9].y
    assert [mark.kind for mark in interrupted.marks] == ["lr", "resume"]


def test_an_evaluation_at_the_step_of_a_resume_counts_once() -> None:
    resume = (opened(resume=True), started(), Resumed(step=2, epoch=0, checkpoint="c", lr_edits=[]))
    view = fold(opened(), started(), steps(1, [1.0, 0.9]), evaluated(2, 0.5), *resume, evaluated(2, 0.6))
    assert [event.accuracy for event in view.evaluations] == [0.6]
    assert list(view.eval_accuracy["test"].y) == [0.6]
    assert list(view.eval_loss["test"].x) == [2.0]


def test_a_resume_drops_an_edit_made_after_its_checkpoint() -> None:
    view = fold(
        opened(), started(), steps(1, [1.0, 0.9]), LrEdited(step=2, factor=0.5, lr=0.05), opened(resume=True), started(),
        Resumed(step=2, epoch=0, checkpoint="c", lr_edits=[]),
    )  # fmt: skip
    assert view.lr_edits == []
    assert [mark.kind for mark in view.marks] == ["resume"]


def test_nan_is_kept_and_counted_but_not_averaged() -> None:
    view = fold(opened(), started(), steps(1, [1.0, None, 1.0]))
    assert math.isnan(view.train_loss.y[1])
    assert view.nonfinite_steps == 1
    assert view.smoothed_loss[0.9].last == pytest.approx(1.0)


def test_the_running_mean_is_debiased() -> None:
    view = fold(opened(), started(), steps(1, [2.0]))
    assert view.smoothed_loss[0.98].last == pytest.approx(2.0)
    apply(view, Record(seq=9, time=200.0, event=steps(2, [1.0])))
    weight, mean = 0.02 + 0.98 * 0.02, 0.98 * 0.02 * 2.0 + 0.02 * 1.0
    assert view.smoothed_loss[0.98].last == pytest.approx(mean / weight)


def test_eta_includes_evaluations() -> None:
    view = fold(opened(), started(), steps(1, [1.0] * 10, seconds=5.0), evaluated(10, 0.5))
    assert view.images_per_s == pytest.approx(16.0)
    assert view.eta_s == pytest.approx(10 * 0.5 + 1 * 2.0)


def test_eta_depends_on_the_remaining_pixels() -> None:
    data = {"image_size": 32, "progressive": [[16, 1]]}
    small = Opened(run="r", directory="runs/r", pid=1, host="h", resume=False, config={"data": data})
    view = fold(small, started(), steps(1, [1.0] * 4, seconds=2.0))
    assert view.eta_s == pytest.approx((6 + 10 * 4) * 0.5), "the second epoch has four times the pixels"
    apply(view, Record(seq=9, time=200.0, event=steps(5, [1.0] * 6, seconds=3.0)))
    apply(view, Record(seq=10, time=201.0, event=steps(11, [1.0] * 2, seconds=4.0)))
    assert view.eta_s == pytest.approx(8 * 2.0), "steps of the smaller images no longer count"


def test_an_epoch_lasts_until_its_evaluation_is_over() -> None:
    view = fold(opened())
    assert view.epoch == 0
    view = fold(opened(), started())
    assert view.epoch == 1
    view = fold(opened(), started(), steps(1, [1.0] * 10), evaluated(10, 0.5))
    assert view.epoch == 1
    view = fold(opened(), started(), steps(1, [1.0] * 11))
    assert view.epoch == 2


def test_a_silent_run_is_lost_and_a_finished_one_is_not() -> None:
    view = fold(opened(), started(), StateChanged(state="training"), steps(1, [1.0]))
    assert view.state_seen(Presence.UNKNOWN, LOST_AFTER_S - 1) is RunState.TRAINING
    assert view.state_seen(Presence.UNKNOWN, LOST_AFTER_S + 1) is RunState.LOST
    apply(view, Record(seq=9, time=200.0, event=Finished(reason="completed", step=1, epoch=1.0, exit_code=0)))
    assert view.state_seen(Presence.GONE, 10_000.0) is RunState.FINISHED


def test_a_run_with_a_known_process_is_not_judged_by_its_silence() -> None:
    view = fold(opened(), started(), StateChanged(state="training"), steps(1, [1.0]))
    assert view.state_seen(Presence.THERE, 10_000.0) is RunState.TRAINING
    assert view.state_seen(Presence.GONE, 0.0) is RunState.LOST


def test_an_edit_changes_the_planned_rate() -> None:
    view = fold(opened(), started(), LrEdited(step=10, factor=0.5, lr=0.1))
    assert view.planned_lr() == ([1.0, 10.0, 11.0, 20.0], [0.1, 0.2, 0.1, 0.0]), "from step 11 on"


def test_panes_follow_the_selection_split() -> None:
    view = fold(
        opened(), started(selection_split="val"), evaluated(10, 0.6, split="val"), evaluated(10, 0.5, split="test"),
        evaluated(20, 0.7, split="val"),
    )  # fmt: skip
    assert view.last_evaluation is not None
    assert (view.last_evaluation.split, view.last_evaluation.step) == ("val", 20)
    assert view.previous_evaluation is not None
    assert view.previous_evaluation.step == 10


def test_events_for_the_user_become_notes() -> None:
    view = fold(
        opened(), started(skipped_images=3), CheckpointFailed(step=3, error="disk full"), ExportFailed(error="no"),
        Acknowledged(command_id="x", command="evaluate", ok=False, message="busy"), Gap(dropped_events=4),
        LogFailed(error="EIO"), Warned(message="careful"),
    )  # fmt: skip
    text = " | ".join(note.text for note in view.notes)
    for part in ("3 unreadable", "disk full", "export failed: no", "evaluate: busy", "4 groups", "EIO", "careful"):
        assert part in text


def test_failed_writes_are_a_state_until_they_succeed() -> None:
    path = "checkpoints/step-00000005.safetensors"
    saved = CheckpointSaved(step=5, path=path, size_bytes=1, sha256="", pinned=False, best=False, seconds=1.0)
    view, since = fold(opened(), started()), []
    for seq, event in enumerate(
        (
            CheckpointFailed(step=3, error="disk full"), LogFailed(error="disk full"),
            CheckpointFailed(step=4, error="disk full"), LogRecovered(seconds=45.0), saved,
        ), 10,
    ):  # fmt: skip
        apply(view, Record(seq=seq, time=float(seq), event=event))
        since.append((view.unsaved_since, view.unlogged_since))
    assert since == [(10.0, None), (10.0, 11.0), (10.0, 11.0), (10.0, None), (None, None)]


def test_regular_saves_share_a_note_and_pinned_or_best_ones_have_their_own() -> None:
    def saved(step: int, *, pinned: bool = False, best: bool = False) -> CheckpointSaved:
        return CheckpointSaved(
            step=step, path=f"checkpoints/step-{step:08d}.safetensors", size_bytes=89_500_000, sha256="", pinned=pinned,
            best=best, seconds=1.0,
        )  # fmt: skip

    view = fold(
        opened(), started(), saved(1), saved(2), saved(3, pinned=True), saved(4), Warned(message="careful"), saved(5),
        saved(6), saved(7, best=True),
    )  # fmt: skip
    assert [note.text for note in view.notes if note.text.startswith("saved")] == [
        f"saved step-{step:08d} (89.5 MB, verified{pinned})"
        for step, pinned in ((2, ""), (3, ", pinned"), (4, ""), (6, ""), (7, ""))
    ]
    assert [mark.step for mark in view.marks] == [3, 7]
    assert len(view.checkpoints) == 7


def test_an_invalid_record_is_counted_and_skipped() -> None:
    events = (
        opened(), started(), StateChanged(state="levitating"),
        Steps(first_step=1, loss=[1.0, 0.9], accuracy=[0.5], lr=[], images=1, seconds=1.0), Warned(message="after"),
    )  # fmt: skip
    view = RunView()
    replay(view, [encode(Record(seq=seq, time=100.0, event=event)) for seq, event in enumerate(events)])
    assert view.bad_records == 2
    assert view.notes[-1].text == "after"


def test_every_event_but_the_heartbeat_changes_the_view() -> None:
    handled = set(fold_event.registry) - {object}
    assert set(event_kinds().values()) - handled == {Heartbeat}
