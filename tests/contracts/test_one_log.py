"""Every source of a log gives the same view and the same screen: the live tee, a tee attached later, and the file."""

from __future__ import annotations

from pathlib import Path

from tests.support.canned import CannedSource, evaluated, opened, started, steps
from trainer.run.control.commands import NoControl
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import decode
from trainer.run.log.event import Event
from trainer.run.log.live_source import LiveSource
from trainer.run.log.reader import LogReader
from trainer.run.log.result_events import CheckpointSaved, EpochEnded, Exported
from trainer.run.log.run_events import (
    Acknowledged,
    Finished,
    Heartbeat,
    LrEdited,
    Monitored,
    Resumed,
    StateChanged,
    Warned,
)
from trainer.run.log.writer import EventLog
from trainer.run.status import Presence
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView
from tui.app.app import DashboardApp
from tui.state.run_port import EventSource, RunPort
from tui.state.ui_settings import UiSettings

EVENTS: list[Event] = [
    opened(), StateChanged(state="preparing", detail="decoding", fraction=0.5), started(), StateChanged(state="training"),
    steps(1), EpochEnded(epoch=1, step=100, train_loss=1.5, train_accuracy=0.4, lr=0.1, seconds=2.0), evaluated(1),
    LrEdited(step=100, factor=0.5, lr=0.05), steps(101, 50), Monitored(readings={"process_bytes": 1e9}),
    Resumed(step=100, epoch=1, checkpoint="step-00000100.safetensors", lr_edits=[]), steps(101, 80), evaluated(2, best=False),
    CheckpointSaved(step=180, path="checkpoints/x", size_bytes=9, sha256="a", pinned=True, best=False, seconds=0.1),
    Acknowledged(command_id="a", command="pause", ok=True), StateChanged(state="paused"), Heartbeat(),
    Warned(message="w"),
    Exported(step=180, path="export/model.onnx", size_bytes=1, max_abs_diff=1e-6, images=256, accuracy=0.5, split="test"),
    Finished(reason="completed", step=180, epoch=1.8, exit_code=0),
]  # fmt: skip


def view_from(source: EventSource) -> RunView:
    view = RunView()
    while lines := source.read():
        for line in lines:
            record = decode(line)
            assert record is not None
            apply(view, record)
    return view


def sources(folder: Path) -> dict[str, EventSource]:
    """A tee from the beginning, a tee attached in the middle of the log, and the file."""
    ticks = iter(range(1_700_000_000, 1_800_000_000))
    log = EventLog(folder / "events.jsonl", clock=lambda: float(next(ticks)))
    live = LiveSource(RunDir(folder), log)
    live.read()
    for event in EVENTS[:9]:
        log.publish(event)
    log.sync()
    late = LiveSource(RunDir(folder), log)
    for event in EVENTS[9:]:
        log.publish(event)
    log.close()
    return {"live": live, "attached late": late, "file": LogReader(folder / "events.jsonl")}


def test_every_source_gives_the_same_view(tmp_path: Path) -> None:
    views = {name: view_from(source) for name, source in sources(tmp_path).items()}
    assert views["live"].step == 180
    assert views["live"] == views["file"]
    assert views["attached late"] == views["file"]


async def test_every_source_gives_the_same_screen(tmp_path: Path) -> None:
    screens = {}
    read_only = NoControl(lambda: ("view only", Presence.UNKNOWN))
    for name, source in sources(tmp_path).items():
        app = DashboardApp(
            RunPort(run_dir=RunDir(tmp_path), source=source, control=read_only), UiSettings(redraw_hz=10.0),
            clock=lambda: 1_700_000_100.0,
        )  # fmt: skip
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.pause(1.2)
            screens[name] = [strip.text for strip in app.screen._compositor.render_strips()]
    assert screens["live"] == screens["file"] == screens["attached late"]
    assert any("completed" in line for line in screens["file"])


def test_canned_lines_are_read_like_a_log() -> None:
    assert view_from(CannedSource(*EVENTS)).step == 180
