"""Run directories with a log but without a trainer."""

from __future__ import annotations

from pathlib import Path

from tests.support.canned import START
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import encode
from trainer.run.log.event import Event, Record


def write_log(runs_dir: Path, name: str, *events: Event, first: int = 0, begun: float = START) -> RunDir:
    """Append events, a second apart, to a run's log; `first` numbers the first of them, `begun` is the time of event 0."""
    run = RunDir(runs_dir / name)
    run.path.mkdir(parents=True, exist_ok=True)
    with run.events.open("ab") as log:
        for seq, event in enumerate(events, first):
            log.write(encode(Record(seq=seq, time=begun + seq, event=event)))
    return run
