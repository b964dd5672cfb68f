"""Passes a run on to one tracker, from a finished log or as the log grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trainer.config.trackers import TrackerName
from trainer.evaluation.picture_sheet import read_sheet
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import LogReader
from trainer.trackers.feed import Feed
from trainer.trackers.position import LOOK_EVERY_S, locked_position
from trainer.trackers.tracker import RunInfo, opener


def forward(run_dir: RunDir, name: TrackerName, ended: Callable[[], bool]) -> Feed:
    """Pass a log on to a tracker, from where an earlier call ended until `ended`; returns the feed with the held calls.

    What is in the log when `ended` turns true is still read. RunError when another process passes the run on to this
    tracker; OSError when the log or the tracker's folder cannot be used.
    """
    folder = run_dir.sinks / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = read_run_config(run_dir).model_dump(mode="json")
    with locked_position(folder, wait=lambda: not ended()) as position:
        tracker = opener(name)(
            RunInfo(name=run_dir.name, identity=position.identity, folder=folder, config=config, step=position.step)
        )
        feed = Feed(tracker, lambda path, step: _picture(run_dir.path / path, step), position.seq, position.step)
        log, begun = LogReader(run_dir.events), position.seq
        try:
            over = False
            while not over:
                over = ended()
                for record in log.records():
                    feed.take(record)
                    if feed.seq != position.seq:
                        tracker.flush()
                        position.move(feed.seq, feed.step)
                if not over:
                    time.sleep(LOOK_EVERY_S)
        finally:
            feed.bad_lines = log.bad_lines
            tracker.close(feed.results if feed.seq > begun else {})
        return feed


def _picture(path: Path, step: int) -> bytes | None:
    """Read a file of pictures if it is still that of a step."""
    try:
        before = path.stat().st_mtime_ns
        png = path.read_bytes() if read_sheet(path).facts.get("step") == step else None
        return png if path.stat().st_mtime_ns == before else None  # None: replaced in the meantime
    except (OSError, ValueError):
        return None
