"""Resumes of runs: the step, the settings, the results, and refusals."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.running import events_of, longer, new_run, resumed_run, start, train, view_of, wait_for
from trainer.config.schema import Config
from trainer.errors import ConfigError, RunError
from trainer.evaluation.run_images import held_out_images
from trainer.model.checkpoint import read_checkpoint, write_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.folder.run_config import refuse_other_config
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Resumed, Started, StateChanged, Warned
from trainer.run.status import RunState
from trainer.session.training_thread import TrainingThread
from tui.state.summary import summary

pytestmark = pytest.mark.usefixtures("narrow_network")


def test_a_resume_ends_with_the_weights_of_an_uninterrupted_run(folder_config: Config, tmp_path: Path) -> None:
    straight = train(folder_config, tmp_path).run.run_dir
    run = new_run(folder_config, tmp_path)
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 2)
    thread.stop("SIGTERM", 143)
    assert thread.join(60)
    assert thread.exit_code == 143
    stopped = view_of(run.run_dir).step
    assert stopped < 8, "the run must have been stopped on its way"
    train(folder_config, tmp_path, resume=run.run_dir)
    files = [CheckpointFolder(r, keep=2).at(8) for r in (straight, run.run_dir)]
    first, second = (read_checkpoint(file) for file in files)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert set(first.tensors) == set(second.tensors)
    assert first.meta["last_evaluation"] == second.meta["last_evaluation"]
    straight_view, resumed_view = view_of(straight), view_of(run.run_dir)
    assert list(straight_view.train_loss.y) == list(resumed_view.train_loss.y)
    assert [e.train_loss for e in straight_view.epochs] == [e.train_loss for e in resumed_view.epochs]


def test_a_resume_skips_a_damaged_checkpoint_with_a_message(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    folder = CheckpointFolder(run, keep=2)
    newest = folder.at(8)
    newest.write_bytes(newest.read_bytes()[:1000])
    train(folder_config, tmp_path, resume=run)
    assert [event.step for event in events_of(run, Resumed)] == [4]
    assert any(
        "skipped checkpoint" in event.message and "step-00000008" in event.message for event in events_of(run, Warned)
    )
    assert view_of(run).step == 8


def test_a_run_with_only_damaged_checkpoints_is_not_restarted(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    for path in run.checkpoints.glob("step-*"):
        path.write_bytes(path.read_bytes()[:1000])
    thread = train(folder_config, tmp_path, resume=run)
    failure = view_of(run).failure
    assert thread.exit_code == 2
    assert failure is not None
    assert "every checkpoint of this run is damaged" in failure.error
    assert events_of(run, Resumed) == [], "the history is kept"


def test_a_resume_stopped_during_preparation_keeps_the_runs_step(folder_config: Config, tmp_path: Path) -> None:
    source = train(folder_config, tmp_path).run.run_dir
    thread = TrainingThread(resumed_run(source, tmp_path, "train.epochs=4"), hold_open=False)
    thread.stop()
    thread.start()
    assert thread.join(60)
    finish = view_of(source).finish
    assert finish is not None
    assert (finish.reason, finish.step, finish.epoch) == ("stopped", 8, 2.0)


def test_a_failed_resume_leaves_the_configuration_unchanged(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path / "runs").run.run_dir
    before = run.config.read_text()
    thread = train(folder_config, tmp_path / "runs", resume=run, overrides=("run.device=cuda:99",))
    assert thread.exit_code == 2
    assert run.config.read_text() == before


def test_a_resume_removes_half_written_files_of_a_killed_trainer(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    unfinished = [
        run.checkpoints / ".step-00000012.safetensors.tmp", run.path / ".results.csv.17.tmp", run.export / ".model.onnx.tmp",
    ]  # fmt: skip
    others = [run.path / "notes.tmp", run.path / ".notes.tmp"]
    for path in (*unfinished, *others):
        path.write_bytes(b"half")
    (run.path / ".folder.1.tmp").mkdir()
    resumed_run(run, tmp_path).close()
    assert not any(path.exists() for path in unfinished)
    assert all(path.exists() for path in others), "only our temporary names are removed"


def test_a_resume_of_a_run_killed_after_its_last_save_ends_at_once(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    events = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(b"".join(line for line in events if b'"finished"' not in line))
    began = time.monotonic()
    assert train(folder_config, tmp_path, resume=run).exit_code == 0
    assert time.monotonic() - began < 60, "waited for a checkpoint that is not being written"
    assert view_of(run).state is RunState.FINISHED


def test_a_run_stopped_in_its_last_evaluation_ends_like_an_uninterrupted_one(
    folder_config: Config, tmp_path: Path
) -> None:
    straight = train(folder_config, tmp_path).run.run_dir
    run = new_run(folder_config, tmp_path)
    thread = TrainingThread(run, hold_open=False)
    # The last evaluation is the first to receive the command: only steps and evaluations take commands.
    publish, evaluations = run.log.publish, [0]

    def stop_in_the_last_evaluation(event: Event) -> object:
        if isinstance(event, StateChanged) and event.state == "evaluating" and event.fraction is None:
            evaluations[0] += 1
            if evaluations[0] == 2:
                thread.stop("SIGTERM", 143)
        return publish(event)

    run.log.publish = stop_in_the_last_evaluation  # type: ignore[method-assign,assignment]
    thread.start()
    assert thread.join(60)
    newest = CheckpointFolder(run.run_dir, keep=2).at(8)
    assert read_checkpoint(newest).meta["evaluation_due"] is True, "stopped in the evaluation"
    for _ in range(2):
        assert train(folder_config, tmp_path, resume=run.run_dir).exit_code == 0
    whole = read_checkpoint(CheckpointFolder(straight, keep=2).at(8))
    ended = read_checkpoint(newest)
    assert whole.meta | {"run": ""} == ended.meta | {"run": ""}
    assert [e.step for e in events_of(run.run_dir, Evaluated)] == [4, 8], "nothing was evaluated twice"


def test_the_test_images_are_evaluated_once_at_the_end(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    root = make_folder(splits=("train", "val", "test"))
    config = make_config("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0")
    run = train(config, tmp_path).run.run_dir
    train(config, tmp_path, resume=run)
    assert [e.split for e in events_of(run, Evaluated)] == ["val", "val", "test"]


def test_latest_points_to_a_readable_checkpoint_after_damage(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    folder = CheckpointFolder(run, keep=2)
    folder.at(8).write_bytes(folder.at(8).read_bytes()[:1000])
    thread = TrainingThread(resumed_run(run, tmp_path), hold_open=False)
    thread.stop()
    thread.start()
    assert thread.join(60)
    latest = folder.pointer("latest")
    assert latest == folder.at(4)
    lines = summary(view_of(run), run)
    assert lines[0].endswith("stopped at step 4 of 8")
    assert f"  checkpoint   {latest}" in lines
    assert f"  resume with  {run.resume_command()}" in lines


def test_a_resume_with_more_epochs_follows_the_longer_schedule(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    train(folder_config, tmp_path, resume=run, overrides=("train.epochs=3",))
    assert view_of(run).step == 12
    schedule = folder_config.schedule.model_copy(update={"warmup": folder_config.schedule.warmup * 2 / 3})
    straight = longer(folder_config, 3).model_copy(update={"schedule": schedule})
    rates = view_of(train(straight, tmp_path).run.run_dir).lr.y
    two_epochs, resumed = view_of(train(folder_config, tmp_path).run.run_dir), view_of(run)
    assert resumed.lr.y[:8] == two_epochs.lr.y, "completed steps keep their rates"
    assert resumed.lr.y[8:] == pytest.approx(rates[8:]), "the schedule of the new length, without a new warm-up"
    (risen,) = [event.message for event in events_of(run, Warned) if "learning rate" in event.message]
    assert risen.startswith(f"the learning rate rises from {resumed.lr.y[7]:.3g} to {resumed.lr.y[8]:.3g} because")


@pytest.mark.parametrize(("before", "after"), [("accuracy", "loss"), ("loss", "accuracy")])
def test_a_resume_may_change_the_measure_of_the_best(
    folder_config: Config, tmp_path: Path, before: str, after: str
) -> None:
    """The best state so far is then compared by the new measure, and patience starts again."""
    first = folder_config.model_copy(update={"eval": folder_config.eval.model_copy(update={"best_by": before})})
    run = train(first, tmp_path).run.run_dir
    best = [event for event in events_of(run, Evaluated) if event.best][-1]
    train(first, tmp_path, resume=run, overrides=(f"eval.best_by={after}", "train.epochs=3"))
    newest = next(event for event in events_of(run, Evaluated) if event.step == 12)
    assert newest.loss is not None
    assert best.loss is not None
    lower, higher = newest.loss < best.loss, newest.accuracy > best.accuracy
    assert newest.best is (lower if after == "loss" else higher or (newest.accuracy == best.accuracy and lower))
    assert read_checkpoint(CheckpointFolder(run, keep=2).at(12)).meta["improved_step"] >= 8


def test_a_resume_with_fewer_epochs_than_completed_is_refused(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    thread = train(folder_config, tmp_path, resume=run, overrides=("train.epochs=1",))
    failure = view_of(run).failure
    assert thread.exit_code == 2
    assert failure is not None
    assert failure.error == "train.epochs=1: 2 epochs of this run are done already"


@pytest.mark.parametrize(
    ("edited", "refused"),
    [
        (("stem: cifar-maxpool", "stem: cifar"), "model.stem: 'cifar-maxpool' -> 'cifar'"),
        (("lr: 0.05", "lr: 0.9"), "optim.lr: 0.05 -> 0.9"), (("epochs: 2", "epochs: 3"), ""),
    ],
)  # fmt: skip
def test_an_edited_run_configuration_is_compared_with_its_checkpoint(
    folder_config: Config, tmp_path: Path, edited: tuple[str, str], refused: str
) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    text = run.config.read_text()
    assert edited[0] in text
    run.config.write_text(text.replace(*edited))
    thread = train(folder_config, tmp_path, resume=run)
    failure = view_of(run).failure
    assert thread.exit_code == (2 if refused else 0)
    assert refused in ("" if failure is None else failure.error)
    if not refused:
        assert events_of(run, Resumed)[0].changes == ["train.epochs: 2 -> 3"]


def test_a_resume_rewrites_the_results_from_the_log(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    before = run.results.read_text()
    run.results.write_text("epoch\n7\n")
    train(folder_config, tmp_path, resume=run, overrides=("train.epochs=3",))
    after = run.results.read_text()
    assert after.startswith(before)
    assert [line.split(",")[0] for line in after.splitlines()] == ["epoch", "1", "2", "3"]


def test_other_classes_are_refused_by_name(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path / "runs").run.run_dir
    for folder in Path(folder_config.data.root).glob("*/red"):
        folder.rename(folder.with_name("rouge"))
    thread = train(folder_config, tmp_path / "runs", resume=run)
    failure = view_of(run).failure
    assert thread.exit_code == 2
    assert failure is not None
    assert "red" in failure.error
    assert "rouge" in failure.error


@pytest.mark.parametrize("part", ["trainer.json", "events.jsonl", "log.txt", "checkpoints", "checkpoints/latest"])
def test_a_run_directory_that_leads_elsewhere_is_not_written_to(
    folder_config: Config, tmp_path: Path, part: str
) -> None:
    run = train(folder_config, tmp_path / "runs").run.run_dir
    inside, outside = run.path / part, tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    before = sorted(outside.iterdir()) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(RunError, match=f"{part}: is a link to {outside}"):
        resumed_run(run, tmp_path)
    assert (sorted(outside.iterdir()) if outside.is_dir() else outside.read_bytes()) == before


def test_a_resume_reports_its_changes(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    train(folder_config, tmp_path, resume=run, overrides=("train.epochs=3", "checkpoint.keep=5"))
    train(folder_config, tmp_path, resume=run)
    changed, same = events_of(run, Resumed)
    assert changed.changes == ["train.epochs: 2 -> 3", "checkpoint.keep: 2 -> 5"]
    assert same.changes == []
    assert any(note.text.endswith("with train.epochs: 2 -> 3, checkpoint.keep: 2 -> 5") for note in view_of(run).notes)


def test_a_resume_refuses_settings_of_another_run(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path).run.run_dir
    with pytest.raises(ConfigError, match=r"optim.lr: 0.05 -> 0.9") as caught:
        resumed_run(run, tmp_path, "optim.lr=0.9")
    assert f"model.init_from={run.path}" in str(caught.value)
    resumed_run(run, tmp_path, "optim.lr=0.05").close()


def test_a_live_run_is_not_resumed(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(folder_config, tmp_path)
    with pytest.raises(RunError, match="already active"):
        resumed_run(RunDir(run.run_dir.path), tmp_path)
    run.close()


def test_a_resume_refuses_other_data_with_the_difference(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path / "runs").run.run_dir
    next(Path(folder_config.data.root).glob("train/red/*.png")).unlink()
    thread = train(folder_config, tmp_path / "runs", resume=run)
    failure = view_of(run).failure
    assert thread.exit_code == 2
    assert failure is not None
    assert "(36 images, " in failure.error
    assert "(35 images, " in failure.error


def test_an_older_run_is_resumed_with_its_original_images(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    """Runs from before `data.reading` have it neither in their configuration nor in their checkpoints."""
    root = make_folder()
    for split in ("train", "test"):
        (root / split / "red" / "@eaDir").mkdir()
        (root / split / "red" / "000.png").rename(root / split / "red" / "@eaDir" / "000.png")
        Image.new("RGB", (10, 12)).save(root / split / "red" / "late.jfif", "JPEG")
        Image.new("RGB", (10, 12)).save(root / split / "red" / "broken.png", exif=b"garbage")
    settings = ("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0", "data.cache=ram", "train.epochs=1")
    newer = train(make_config(*settings), tmp_path).run.run_dir
    run = train(make_config(*settings, "data.reading=1"), tmp_path).run.run_dir
    path = CheckpointFolder(run, keep=2).at(4)
    run.config.write_text(run.config.read_text().replace("  reading: 1\n", ""))
    checkpoint = read_checkpoint(path)
    del checkpoint.run.config["data"]["reading"]
    write_checkpoint(path, checkpoint)
    started = [events_of(each, Started)[-1] for each in (newer, run)]
    assert started[0].fingerprint != started[1].fingerprint
    assert [each.skipped_images for each in started] == [0, 2]
    assert train(make_config(), tmp_path, resume=run, overrides=("train.epochs=2",)).exit_code == 0
    assert view_of(run).step == 8
    assert events_of(run, Started)[-1].fingerprint == started[1].fingerprint
    assert "reading: 1\n" in run.config.read_text()
    assert held_out_images(run, "test", ("blue", "green", "red")).remarks == []
    with pytest.raises(ConfigError, match=r"a resume cannot change\n  data.reading: 1 -> 2"):
        resumed_run(run, tmp_path, "data.reading=2")
    refuse_other_config(run, make_config(*settings, "train.epochs=2"), "the file that it was started with")
