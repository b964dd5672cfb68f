"""Canned runs for the dashboard: events as a trainer would log them."""

from __future__ import annotations

import math

from trainer.run.control.commands import Command
from trainer.run.log.codec import encode
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import EpochEnded, Evaluated, LayersMeasured, Steps
from trainer.run.log.run_events import Diverged, Monitored, Opened, Started, StateChanged
from trainer.run.status import Presence

START = 1_700_000_000.0
CLASSES = ["airplane", "[red]cat[/]", "ev\x1b[2Jil", "dog", "漢字"]


class CannedSource:
    """A source of log lines that a test fills."""

    def __init__(self, *events: Event) -> None:
        self._seq = 0
        self._lines: list[bytes] = []
        self.add(*events)

    def add(self, *events: Event) -> None:
        """Add events that the dashboard reads next."""
        for event in events:
            self._lines.append(encode(Record(seq=self._seq, time=START + self._seq, event=event)))
            self._seq += 1

    def read(self) -> list[bytes]:
        """Return the lines added since the last call."""
        lines, self._lines = self._lines, []
        return lines


class Recorder:
    """A control port that records the commands it is sent."""

    hint = ""
    can_control = True
    presence = Presence.UNKNOWN
    refusal = ""

    def __init__(self) -> None:
        self.sent: list[Command] = []

    def send(self, command: Command) -> None:
        """Record a command."""
        self.sent.append(command)

    def refresh(self) -> None:
        """Nothing changes."""

    def close(self) -> None:
        """Nothing to close."""


def opened() -> Opened:
    """The opening of a run called `demo`."""
    return Opened(
        run="demo", directory="runs/demo", pid=1, host="box", resume=False, config={"eval": {"every_epochs": 1}}
    )


def started(classes: list[str] | None = None, epochs: int = 10) -> Started:
    """The start of a run with 100 steps per epoch."""
    total = epochs * 100
    steps = [float(step) for step in range(0, total, 10)]
    return Started(
        classes=classes or CLASSES, splits={"train": 6400, "test": 500}, selection_split="test", fingerprint="f",
        model={"name": "ResNet-18", "stem": "cifar", "parameters": 11_173_962, "trainable": 11_173_962},
        device={"kind": "cpu", "name": "A CPU"}, choices={"precision": "bf16", "channels_last": True}, epochs=epochs,
        steps_per_epoch=100, total_steps=total, planned_lr=[steps, [0.2 * (1 - step / total) for step in steps]], versions={},
    )  # fmt: skip


def steps(first: int, count: int = 100) -> Steps:
    """Steps with falling loss."""
    numbers = range(first, first + count)
    return Steps(
        first_step=first, loss=[2.3 * math.exp(-n / 300) + 0.05 * (n % 7) for n in numbers],
        accuracy=[1 - 0.9 * math.exp(-n / 300) for n in numbers], lr=[0.2 * (1 - n / 1000) for n in numbers], images=64 * count,
        seconds=0.5, budget={"data": 1.0, "compute": 90.0, "evaluate": 8.0, "save": 1.0},
    )  # fmt: skip


def diverged(checkpoint: str = "step-00000100.safetensors") -> Diverged:
    """A run held after ten non-finite steps."""
    return Diverged(step=310, in_a_row=10, checkpoint=checkpoint)


def evaluated(epoch: int, classes: int = len(CLASSES), *, best: bool = True) -> Evaluated:
    """An evaluation, better with each epoch; mistakes go to the next two classes, twice as often to the first of them."""
    correct = [min(100, 10 * epoch + 5 * label) for label in range(classes)]
    confusions = [_confusions(label, 100 - right, classes) for label, right in enumerate(correct)]
    predicted = list(correct)
    for pairs in confusions:
        for other, images in zip(pairs[::2], pairs[1::2], strict=True):
            predicted[other] += images
    return Evaluated(
        split="test", epoch=float(epoch), step=epoch * 100, loss=2.0 / (epoch + 1), accuracy=sum(correct) / (100 * classes),
        correct=correct, counts=[100] * classes, predicted=predicted, confusions=confusions, best=best, seconds=1.0,
    )  # fmt: skip


def layers(epoch: int, *, frozen: int = 0) -> LayersMeasured:
    """Statistics of layers whose gradients grow with the epoch (from 1); the first `frozen` layers have none."""
    names = [f"layer{stage}.{block}.conv{conv}" for stage in range(1, 5) for block in (0, 1) for conv in (1, 2)]
    names = ["conv1", *names, "fc"]
    count = len(names)
    hidden: list[None] = [None] * frozen
    shape = [0] * 8 + [1, 5, 20, 100, 100, 20, 5, 1] + [0] * 8
    shares = [0.02 * epoch] * (count - frozen)
    return LayersMeasured(
        epoch=float(epoch), step=epoch * 100, names=names, parameters=[36_864] * count, weight_norms=[12.0] * count,
        weight_ranges=[0.3] * count, weights=[shape] * count, gradient_norms=[*hidden, *shares],
        gradient_ranges=[*hidden, *shares], gradients=[*[[]] * frozen, *[shape] * (count - frozen)],
    )  # fmt: skip


def _confusions(label: int, wrong: int, classes: int) -> list[int]:
    second = wrong // 3 if classes > 2 else 0
    pairs = [((label + 1) % classes, wrong - second), ((label + 2) % classes, second)]
    return [number for other, images in pairs if images for number in (other, images)]


def training_run(epochs: int = 3, classes: list[str] | None = None) -> CannedSource:
    """A run in training."""
    source = CannedSource(opened(), started(classes), StateChanged(state="training"))
    number = len(classes) if classes else len(CLASSES)
    for epoch in range(1, epochs + 1):
        source.add(steps((epoch - 1) * 100 + 1), EpochEnded(
            epoch=epoch, step=epoch * 100, train_loss=1.0, train_accuracy=0.5, lr=0.1, seconds=0.5
        ), layers(epoch), evaluated(epoch, number))  # fmt: skip
    source.add(
        Monitored(
            readings={
                "process_bytes": 2.0**30,
                "system_used_bytes": 2.0**31,
                "system_total_bytes": 2.0**34,
                "cpu_pct": 97.0,
            }
        )
    )
    return source
