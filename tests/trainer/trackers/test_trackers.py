"""Logging a run to trackers: completely, once, and without affecting training."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.running import events_of, new_run, start, wait_until
from tests.support.tracked_events import evaluated, layers, saved, started, steps
from trainer.config import trackers as names
from trainer.config.loader import to_yaml
from trainer.config.schema import Config
from trainer.config.trackers import TrackerName, metric_name, refuse_missing
from trainer.errors import ConfigError, RunError
from trainer.host.self_command import own_command
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import event_kinds
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import PicturesSaved
from trainer.run.log.run_events import Finished, Monitored, NoteAdded, Resumed, Warned
from trainer.trackers.feed import Feed
from trainer.trackers.relay import locked_position
from trainer.trackers.tracker import Histogram, RunInfo


@dataclass
class Recorder:
    """A tracker that records its calls."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        self.calls.append(("scalars", step, dict(values)))

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        self.calls.append(("histogram", step, name))

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        self.calls.append(("picture", step, name))

    def note(self, text: str, *, step: int, time: float) -> None:
        self.calls.append(("note", step, text))

    def back_to(self, step: int) -> None:
        self.calls.append(("back", step))

    def flush(self) -> None:
        self.calls.append(("flush",))

    def close(self, results: Mapping[str, float]) -> None:
        self.calls.append(("close", dict(results)))

    @property
    def steps(self) -> list[int]:
        """Steps whose loss was logged, in order."""
        return [call[1] for call in self.calls if call[0] == "scalars" and "train/loss" in call[2]]


def records(events: Iterable[Event]) -> list[Record]:
    return [Record(seq=seq, time=100.0 + seq, event=event) for seq, event in enumerate(events)]


def fed(events: Iterable[Event], seq: int = -1, step: int = 0) -> tuple[Recorder, Feed]:
    sink = Recorder()
    feed = Feed(sink, lambda path, step: None, seq, step)
    for record in records(events):
        feed.take(record)
    return sink, feed


def test_steps_are_logged_only_after_a_checkpoint_includes_them() -> None:
    sink, feed = fed([started(), steps(1), steps(3), saved(2)])
    assert sink.steps == [1, 2]
    assert (feed.step, feed.held) == (2, 2)
    feed.take(Record(seq=9, time=0.0, event=saved(4)))
    assert sink.steps == [1, 2, 3, 4]
    assert feed.held == 0


def test_every_handler_of_the_feed_belongs_to_a_kind_of_event() -> None:
    handled = {name.removeprefix("_on_") for name in vars(Feed) if name.startswith("_on_")}
    assert len(handled) == 14
    assert handled <= set(event_kinds())


def test_steps_undone_by_a_resume_are_never_logged() -> None:
    resumed = Resumed(step=2, epoch=0, checkpoint="x")
    sink, _ = fed([started(), steps(1), saved(2), steps(3), resumed, steps(3), steps(5), saved(6)])
    assert sink.steps == [1, 2, 3, 4, 5, 6]


def test_a_later_session_continues_where_the_previous_one_ended() -> None:
    events = [started(), steps(1), saved(2), steps(3), Resumed(step=2, epoch=0, checkpoint="x"), steps(3), saved(4)]
    _, first = fed(events[:4])
    sink, _ = fed(events, first.seq, first.step)
    assert sink.steps == [3, 4]


def test_a_rollback_is_logged() -> None:
    resumed = Resumed(step=2, epoch=0, checkpoint="x")
    events = [started(), steps(1), saved(2), steps(3), saved(4), resumed, steps(3), saved(4)]
    sink, feed = fed(events)
    assert ("back", 2) in sink.calls
    assert sink.steps == [1, 2, 3, 4, 3, 4]
    again, _ = fed(events, feed.seq, feed.step)
    assert ("back", 2) not in again.calls, "logged in the previous session"


def test_all_figures_are_logged_by_name() -> None:
    events = [
        started(), steps(1, count=4), layers(4), evaluated(4), Monitored(readings={"rss_bytes": 7.0}),
        NoteAdded(step=4, text="a note"), saved(4), Finished(reason="completed", step=4, epoch=1.0, exit_code=0),
    ]  # fmt: skip
    sink, feed = fed(events)
    figures = {name: value for call in sink.calls if call[0] == "scalars" for name, value in call[2].items()}
    assert figures["train/images_per_s"] == 64.0
    assert (figures["test/accuracy"], figures["test_class/cat"], figures["test_class/[red]dog[/]"]) == (0.75, 1.0, 0.5)
    assert figures["gradient_norm/fc"] == 0.25
    assert "gradient_norm/conv1" not in figures, "frozen"
    assert figures["system/rss_bytes"] == 7.0
    assert [call[2] for call in sink.calls if call[0] == "histogram"] == ["weights/conv1", "weights/fc", "gradients/fc"]
    assert [call[2] for call in sink.calls if call[0] == "note"] == ["a note", "completed at step 4"]
    assert feed.results == {"best/test_accuracy": 0.75, "best/step": 4.0}


def test_a_stopped_run_has_no_results() -> None:
    _, feed = fed(
        [started(), steps(1), evaluated(2), saved(2), Finished(reason="stopped", step=2, epoch=0.5, exit_code=0)]
    )
    assert feed.results == {}


def test_a_picture_is_read_before_the_next_one_replaces_it() -> None:
    read: list[tuple[str, int]] = []

    def picture(path: str, step: int) -> bytes | None:
        read.append((path, step))
        return b"png" if step == 2 else None

    sink = Recorder()
    feed = Feed(sink, picture)
    pictures = [
        PicturesSaved(what="mistakes", split="test", step=step, epoch=1.0, path="a.png", images=1) for step in (1, 2)
    ]
    for record in records([started(), *pictures]):
        feed.take(record)
    assert read == [("a.png", 1), ("a.png", 2)]
    feed.take(Record(seq=9, time=0.0, event=saved(2)))
    assert [call for call in sink.calls if call[0] == "picture"] == [("picture", 2, "mistakes/test")]


def test_a_histogram_has_edges() -> None:
    assert Histogram(counts=[1, 2, 3, 4], limit=2.0).edges == [-2.0, -1.0, 0.0, 1.0, 2.0]


def test_settings_are_flat_and_plain() -> None:
    config: dict[str, dict[str, Any]] = {"optim": {"lr": 0.1, "layer_lr": None}, "data": {"progressive": [[16, 4]]}}
    origin = RunInfo(name="a", identity="b", folder=Path(), config=config, step=0)
    assert origin.settings == {"optim.lr": 0.1, "data.progressive": "[[16, 4]]"}


def test_only_one_process_at_a_time_logs_a_run(tmp_path: Path) -> None:
    with locked_position(tmp_path) as first:
        first.move(7, 3)
        with pytest.raises(RunError, match="another process"), locked_position(tmp_path):
            pass
    with locked_position(tmp_path) as later:
        assert (later.seq, later.step, later.identity) == (7, 3, first.identity)


def test_a_damaged_position_is_explained_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "position.json").write_text("{")
    with pytest.raises(RunError, match="delete it"), locked_position(tmp_path):
        pass


def test_a_missing_tracker_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_installed", lambda package: package != "trackio")
    refuse_missing(["tensorboard"])
    with pytest.raises(ConfigError, match=r"pip install 'r18-tui\[trackio\]'"):
        refuse_missing(["tensorboard", "trackio"])


@pytest.mark.parametrize("at", ["", "cwd", "folder"])
@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio", "tensorboard"])
def test_a_folder_with_a_trackers_name_is_not_the_tracker(
    name: TrackerName, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name / "run-1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [{"cwd": str(tmp_path), "folder": f"{tmp_path}/."}.get(at, "")])
    with pytest.raises(ConfigError, match="not installed"):
        refuse_missing([name])
    (tmp_path / name / "__init__.py").touch()
    if at == "folder":
        refuse_missing([name])  # an import path like any other
    else:
        with pytest.raises(ConfigError, match="not installed"):
            refuse_missing([name])


@given(
    st.lists(
        st.text(alphabet="aA_ /.:[]é\udc80\n", min_size=1, max_size=4) | st.text(min_size=1, max_size=300), unique=True
    )
)
def test_metric_names_for_mlflow_are_valid_and_distinct(classes: list[str]) -> None:
    metric_names = [metric_name(f"test_class/{name}") for name in classes]
    assert len(set(metric_names)) == len(classes)
    for name in metric_names:
        assert re.fullmatch(r"[\w\-. /]{1,250}", name)
        assert posixpath.normpath(name) == name, "required by MLflow"
    assert metric_name("val_class/pug dog") == "val_class/pug dog"


def test_a_run_with_a_tracker_is_logged_by_another_process(folder_config: Config, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "tracked.yaml"
    path.write_text(to_yaml(folder_config))
    command = own_command(
        "trainer.cli", str(path), "run.sinks=[tensorboard]", "--name", "tracked", "--runs-dir", str(tmp_path)
    )
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    run = RunDir(tmp_path / "tracked")
    last = events_of(run, Finished)[-1].step
    wait_until(lambda: _position(run, "tensorboard") == last, 60)
    with locked_position(run.sinks / "tensorboard"):  # its process has ended
        logged = EventAccumulator(str(run.sinks / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [point.step for point in logged.Scalars("train/loss")] == list(range(1, last + 1))
    assert [point.step for point in logged.Images("mistakes/test")] or not events_of(run, PicturesSaved)


def _position(run: RunDir, name: str) -> int:
    """The step that a tracker has reached; -1 while its process runs."""
    try:
        with locked_position(run.sinks / name) as position:
            return position.step
    except (RunError, FileNotFoundError):
        return -1


def test_a_dying_tracker_is_only_a_warning(folder_config: Config, tmp_path: Path) -> None:
    config = folder_config.model_copy(update={"run": folder_config.run.model_copy(update={"sinks": ["tensorboard"]})})
    run = new_run(config, tmp_path)
    run.run_dir.sinks.write_text("where a folder is to be")
    thread = start(run, hold_open=True)
    wait_until(lambda: any("logging to tensorboard stopped" in w.message for w in events_of(run.run_dir, Warned)), 60)
    wait_until(lambda: bool(events_of(run.run_dir, Finished)), 60)
    thread.stop()
    thread.release()
    assert thread.join(60)
    [warning] = [w.message for w in events_of(run.run_dir, Warned) if "tensorboard" in w.message]
    assert "FileExistsError" in warning or "NotADirectoryError" in warning
    assert f"r18-tui sync {run.run_dir.path} --to tensorboard" in warning
    assert thread.exit_code == 0
