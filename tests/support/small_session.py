"""A saver with a real folder and writer, the state of a tiny network, and the parts of a trainer that a saver uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.checkpoints import run_record
from tests.trainer.training.test_nonfinite_gate import OPTIM, small_model
from trainer.config.loader import build_config
from trainer.config.lr_schedule import LrSchedule
from trainer.config.schema import ScheduleConfig
from trainer.model.checkpoint import Checkpoint, read_checkpoint
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.session import saver as saver_module
from trainer.session.saver import Saver
from trainer.training.metrics import Stopwatch
from trainer.training.optimizer import build_optimizer
from trainer.training.state import TrainState

EVERY_S = 60.0


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Small:
    """A small session: 20 steps at a constant rate of 0.1.

    Attributes:
        logged: Published events.
        trainer: Its `found_bad` becomes `skipped_from` once its metrics are drained.
    """

    def __init__(self, folder: Path) -> None:
        self.logged: list[Event] = []
        self.run_dir = RunDir(folder)
        self.run_dir.checkpoints.mkdir(parents=True)
        log = SimpleNamespace(publish=self.logged.append, sync=lambda timeout: True)
        config = build_config({}, {}, "test", ["checkpoint.keep=9", f"checkpoint.every_s={EVERY_S}"])
        run: Any = SimpleNamespace(run_dir=self.run_dir, config=config, log=log, repair_directory=lambda: None)
        self.saver = Saver(run)
        self.saver.run_record = run_record()
        model = small_model()
        schedule = LrSchedule(config=ScheduleConfig(name="constant", warmup=0.0), lr=0.1, epochs=2, steps_per_epoch=10)
        state = TrainState(model, build_optimizer(model, OPTIM, precision="fp32"), schedule)
        self.trainer: Any = SimpleNamespace(
            state=state, skipped_from=None, found_bad=None, last_save=0.0, stopwatch=Stopwatch(), drain=self._drain,
            train_step=SimpleNamespace(micro_batches=2), restore_earlier=self._go_back,
        )  # fmt: skip

    def _drain(self) -> None:
        self.trainer.skipped_from = self.trainer.found_bad

    def _go_back(self, checkpoint: Checkpoint, factor: float) -> None:
        self.trainer.state.restore(checkpoint)
        self.trainer.state.schedule.edit(self.trainer.state.step, factor)
        self.trainer.skipped_from = self.trainer.found_bad = None

    def save(self, step: int, **wanted: bool) -> None:
        """Save the state as that of a step and wait for the write."""
        self.trainer.state.step = step
        self.saver.save(self.trainer, **wanted)
        assert self.saver.wait_for(step) == ""

    def meta(self, step: int) -> dict[str, Any]:
        """Metadata of a checkpoint."""
        return read_checkpoint(self.saver.folder.at(step)).meta

    def events_of(self, kind: type[Event]) -> list[Event]:
        """Published events of one kind."""
        return [event for event in self.logged if isinstance(event, kind)]


@contextmanager
def small_session(folder: Path) -> Iterator[Small]:
    """A small session whose writer is closed at the end."""
    session = Small(folder)
    try:
        yield session
    finally:
        session.saver.close()


def set_clock(monkeypatch: pytest.MonkeyPatch, *modules: Any) -> Clock:
    """Replace the clock of modules, by default the saver's."""
    clock = Clock()
    for module in modules or (saver_module,):
        monkeypatch.setattr(module, "time", clock)
    return clock


def full_disk(*_: object) -> None:
    """Stands in for the check of free space, on a full disk."""
    raise OSError("No space left on device")
