"""Random damage to logs, and every reader of a log to try on them."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.canned import diverged, evaluated, layers, opened, started, steps
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import encode, event_kinds
from trainer.run.log.event import Event, Record
from trainer.run.log.reader import LogReader, read_records
from trainer.run.log.result_events import (
    CheckpointFailed,
    CheckpointSaved,
    EpochEnded,
    Exported,
    ExportFailed,
    ExportProgress,
    LrRangeTested,
    PicturesSaved,
    Steps,
)
from trainer.run.log.results_csv import ResultsCsv
from trainer.run.log.run_events import (
    Acknowledged,
    Failed,
    Finished,
    Gap,
    Heartbeat,
    LogRecovered,
    LrEdited,
    Monitored,
    NoteAdded,
    Opened,
    Resumed,
    SettingsChanged,
    StagesFrozen,
    StateChanged,
    Warned,
)
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from trainer.trackers.feed import Feed
from trainer.trackers.tracker import Histogram
from tui.commands.report import write_report
from tui.commands.show import print_csv, print_json, print_report
from tui.drawing.glyphs import UNICODE
from tui.state.display_state import DisplayState
from tui.widgets.class_accuracy import ClassPane
from tui.widgets.class_table import ClassTable
from tui.widgets.compact import CompactPane, SparkPane, WorstPane
from tui.widgets.confusion import ConfusionPane
from tui.widgets.curves import AccuracyPane, LossPane
from tui.widgets.events_list import EventsPane, FailurePane
from tui.widgets.header import Header
from tui.widgets.layers import LayersPane
from tui.widgets.lr_pane import LrPane
from tui.widgets.memory import MemoryPane
from tui.widgets.network import NetworkPane
from tui.widgets.pane import Pane
from tui.widgets.time_budget import TimePane

START = 1_700_000_000.0
_ODD: list[Any] = [
    None, True, "", "odd", "\x1b[2J", 0, -1, 1, 2, 7, 2**31, 2**53, 2**63, 10**30, -(10**18), 0.5, -0.5, 1e18, 1e300, -1e300,
    5e-324, [], [None], [[]], [1], [-1, 2], {}, {"a": None}, {"": []}, float("nan"), float("inf"), "NaN", "1e999",
]  # fmt: skip


def history() -> list[Event]:
    """A run with every kind of event."""
    config: dict[str, dict[str, Any]] = {
        "eval": {"every_epochs": 1}, "checkpoint": {"every_s": 60.0}, "optim": {"lr": 0.1, "name": "sgd"},
        "data": {"image_size": 32, "progressive": [[16, 1]]}, "schedule": {"name": "linear"},
    }  # fmt: skip
    events: list[Event] = [
        Opened(run="demo", directory="runs/demo", pid=1, host="box", resume=False, config=config),
        StateChanged(state="preparing", detail="decoding images", fraction=0.5), started(),
        StateChanged(state="training"), StagesFrozen(step=0, stages=["conv1", "layer1"], trainable=9_000_000),
    ]  # fmt: skip
    for epoch in range(1, 7):
        first = epoch * 100 - 99
        rest = epoch * 50.0
        events += [
            *(steps(first + done, 25) for done in range(0, 100, 25)),
            Heartbeat(),
            Monitored(readings={"process_bytes": 1e9 + epoch, "system_used_bytes": 2e9, "system_total_bytes": 4e9}),
            EpochEnded(epoch=epoch, step=100 * epoch, train_loss=1.0, train_accuracy=0.5, lr=0.1, seconds=rest),
            layers(epoch, frozen=2), evaluated(epoch, best=epoch % 2 == 0),
            CheckpointSaved(
                step=100 * epoch, path=f"checkpoints/step-{epoch}", size_bytes=9, sha256="", pinned=False, best=False,
                seconds=1.0,
            ),
            PicturesSaved(what="mistakes", split="test", step=100 * epoch, epoch=float(epoch), path="eval/m.png", images=4),
        ]  # fmt: skip
    return [
        *events,
        Steps(
            first_step=601, loss=[None, 2.0], accuracy=[0.0, 0.1], lr=[0.1, 0.1], images=16, seconds=1.0, skipped=[601]
        ),
        diverged(),
        LrEdited(step=602, factor=0.5, lr=0.05), NoteAdded(step=602, text="a note"), Warned(message="careful"),
        LrRangeTested(step=602, lrs=[1e-4, 1e-3], losses=[2.0, 1.0], suggestion=None, reason="none"),
        SettingsChanged(
            step=602, changes=["train.epochs: 10 -> 12"], config={"train": {"epochs": 12}}, epochs=12, total_steps=1200,
            planned_lr=[[1.0, 1200.0], [0.1, 0.0]],
        ),
        Resumed(step=500, epoch=5, checkpoint="step-5", lr_edits=[[300, 0.5]]), opened(), started(epochs=12),
        steps(501, 50), CheckpointFailed(step=550, error="full"), Gap(dropped_events=2), LogRecovered(seconds=3.0),
        Acknowledged(command_id="0" * 12, command="pause", ok=False, message="no"),
        ExportProgress(stage="checking", fraction=0.4), ExportFailed(error="no"),
        Exported(step=550, path="export/model.onnx", size_bytes=9, max_abs_diff=1e-6, images=4, accuracy=0.5, split="test"),
        Failed(error="out of luck", exit_code=1),
        Finished(reason="stopped", step=550, epoch=5.5, exit_code=0),
    ]  # fmt: skip


def lines() -> list[bytes]:
    """The lines of `history`, two seconds apart."""
    return [encode(Record(seq=seq, time=START + 2 * seq, event=event)) for seq, event in enumerate(history())]


def mutated(seed: int) -> list[bytes]:
    """The lines of `history`, or its beginning, with one to sixteen damages: to text, keys, or values at any depth."""
    draw = random.Random(seed)
    damaged = lines()
    damaged = damaged[: draw.choice([len(damaged), draw.randrange(3, len(damaged))])]
    for _ in range(draw.choice([1, 2, 4, 8, 16])):
        place = draw.randrange(len(damaged))
        line = damaged[place]
        kind = draw.choice(["text", "twice", "swap", *["value"] * 6])
        if kind == "text":
            damaged[place] = (
                draw.choice([line[: draw.randrange(len(line))], b"\xff\x00", b"[1]", b"null", b"{}"]) + b"\n"
            )
        elif kind == "twice":
            damaged.insert(draw.randrange(len(damaged)), line)
        elif kind == "swap":
            other = draw.randrange(len(damaged))
            damaged[place], damaged[other] = damaged[other], line
        else:
            damaged[place] = _with_damage(line, draw)
    return damaged


def _with_damage(line: bytes, draw: random.Random) -> bytes:
    """A line with another value, key, kind or length somewhere."""
    try:
        content = json.loads(line)
    except ValueError:  # damaged before
        return line
    if not content or not isinstance(content, dict):
        return line
    holder: Any = content
    key = draw.choice(list(content))
    while isinstance(holder[key], dict | list) and holder[key] and draw.random() < 0.6:
        holder = holder[key]
        key = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    what = draw.choice(["odd", "odd", "odd", "kind", "gone", "longer", "scaled"])
    if what == "kind":
        content["kind"] = draw.choice([*event_kinds(), "hologram", 5, None])
    elif what == "gone":
        del holder[key]
    elif what == "longer" and isinstance(holder[key], list):
        holder[key].append(draw.choice([*holder[key], *_ODD]))
    elif what == "scaled" and isinstance(holder[key], int | float):
        holder[key] *= draw.choice([-1, 0, 1000, 10**9])
    else:
        holder[key] = draw.choice(_ODD)
    return json.dumps(content).encode() + b"\n"


class _Sink:
    """A tracker that checks what it is given and keeps nothing."""

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        assert all(isinstance(value, int | float) for value in values.values())

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        assert len(values.edges) == len(values.counts) + 1

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        pass

    def note(self, text: str, *, step: int, time: float) -> None:
        pass

    def back_to(self, step: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self, results: Mapping[str, float]) -> None:
        pass


PANES: tuple[type[Pane], ...] = (
    AccuracyPane, ClassPane, ClassTable, CompactPane, ConfusionPane, EventsPane, FailurePane, Header, LayersPane, LossPane,
    LrPane, MemoryPane, NetworkPane, SparkPane, TimePane, WorstPane,
)  # fmt: skip
"""Every pane that shows a log; picture panes show other files."""


def read_everywhere(run_dir: RunDir) -> int:
    """Read a run with every reader of a single log; returns the number of skipped lines."""
    view, follower = RunView(), LogReader(run_dir.events)
    while chunk := follower.read():
        replay(view, chunk)
    scene = DisplayState(view=view, now=START + 1000, run_dir=run_dir, glyphs=UNICODE)
    for axis in ("epoch", "step", "time"):
        scene.axis = axis
        for pane in [kind() for kind in PANES]:
            for width, height in ((120, 40), (34, 9)):
                pane.rows_for(scene, width, height)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for reader in (print_report, print_json, print_csv):
            reader(run_dir)
    write_report(run_dir, None)
    ResultsCsv(run_dir).replay(read_records(run_dir.events))
    feed = Feed(_Sink(), lambda path, step: None)
    for record in LogReader(run_dir.events).records():
        feed.take(record)
    return view.bad_records


def write(run_dir: Path, lines: list[bytes]) -> RunDir:
    """A run directory with a log of these lines."""
    run_dir.mkdir(parents=True)
    (run_dir / "events.jsonl").write_bytes(b"".join(lines))
    return RunDir(run_dir)
