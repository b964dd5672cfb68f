"""Training with several processes, started by torchrun: two on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import torch

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.running import events_of, train, view_of, wait_for
from trainer.config.loader import load_config
from trainer.config.schema import Config
from trainer.data.batches.batches import BatchPlan
from trainer.data.draws import epoch_order
from trainer.errors import ConfigError
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import Steps
from trainer.run.log.run_events import Opened, Resumed
from trainer.run.view.run_view import RunView
from trainer.training.batch_source import plan_of
from trainer.training.distributed import Peers

pytestmark = pytest.mark.usefixtures("narrow_network")

SMALL = (
    "data.image_size=8", "data.batch_size=64", "model.stem=cifar-maxpool", "train.epochs=1", "run.device=cpu",
    "run.precision=fp32", "run.channels_last=true", "run.convolution=native", "optim.lr=0.02",
)  # fmt: skip


class Torchrun:
    """Two processes under torchrun, and the run that they train."""

    def __init__(self, folder: Path, *settings: str, restarts: int = 0) -> None:
        self.run = RunDir(folder / "runs" / "digits")
        self._output = folder / "output.txt"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}",
            "-m", "trainer", "digits", *settings, "--runs-dir", str(folder / "runs"),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    @property
    def workers(self) -> list[int]:
        """Ids of the training processes."""
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [int(child) for child in children if b"\0trainer\0" in Path(f"/proc/{child}/cmdline").read_bytes()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to torchrun itself."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for the end of all processes; returns the exit code."""
        return self._process.wait(120)

    @property
    def output(self) -> str:
        """The output of all processes."""
        return self._output.read_text()

    def kill(self) -> None:
        """End all remaining processes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(60)


class Launcher(Protocol):
    def __call__(self, *settings: str, restarts: int = 0) -> Torchrun: ...


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Launcher]:
    started: list[Torchrun] = []

    def launch(*settings: str, restarts: int = 0) -> Torchrun:
        started.append(Torchrun(tmp_path, *settings, restarts=restarts))
        return started[-1]

    yield launch
    for processes in started:
        processes.kill()


def test_two_processes_train_like_two_micro_batches_and_survive_a_kill(torchrun: Launcher, tmp_path: Path) -> None:
    two = torchrun(*SMALL, "train.epochs=3", restarts=1)
    wait_for(two.run, lambda view: view.step >= 24 and any(two.run.checkpoints.glob("step-*.safetensors")))
    leader = events_of(two.run, Opened)[-1].pid
    (follower,) = (pid for pid in two.workers if pid != leader)
    os.kill(follower, signal.SIGKILL)
    assert two.end() == 0, two.output
    view = view_of(two.run)
    (resumed,) = events_of(two.run, Resumed)
    assert 0 < resumed.step < 3 * 22
    assert view.step == view.total_steps == 3 * 22
    assert list(view.train_loss.x) == list(range(1, 3 * 22 + 1)), "every step once"
    assert sorted(path.name for path in two.run.path.parent.iterdir()) == ["digits"], "and no second run"
    images = [event.images / len(event.loss) for event in events_of(two.run, Steps)]
    assert set(images) == {64.0}, "images of all processes count"
    alone = _train_alone("train.epochs=3", "train.grad_accum_steps=2", runs_dir=tmp_path / "alone")
    # Sums in another order differ in their last bits, which grow with later steps.
    assert list(view.train_loss.y)[:22] == pytest.approx(list(alone.train_loss.y)[:22], rel=1e-3)
    assert list(view.train_accuracy.y)[:22] == pytest.approx(list(alone.train_accuracy.y)[:22], abs=0.04)
    # Micro-batches update the running statistics one after the other, two processes update them with the mean of both.
    assert view.last_evaluation is not None
    assert alone.last_evaluation is not None
    assert view.last_evaluation.accuracy == pytest.approx(alone.last_evaluation.accuracy, abs=0.05)


def _train_alone(*settings: str, runs_dir: Path) -> RunView:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in torchrun's processes: small networks diverge quickly after another rounding
    try:
        return view_of(train(load_config("digits", [*SMALL, *settings]).config, runs_dir).run.run_dir)
    finally:
        torch.set_num_threads(threads)


def test_a_stop_ends_all_processes_with_the_state_saved(torchrun: Launcher) -> None:
    two = torchrun(*SMALL, "train.epochs=200", "eval.every_epochs=200")
    wait_for(two.run, lambda view: view.step >= 30)
    for worker in two.workers:
        os.kill(worker, signal.SIGUSR1)  # a warning: only saves
    wait_for(two.run, lambda view: any("SIGUSR1: saving" in note.text for note in view.notes))
    two.signal(signal.SIGTERM)
    assert two.end() != 0
    finish = view_of(two.run).finish
    assert finish is not None, two.output
    assert (finish.reason, finish.exit_code) == ("SIGTERM", 143)
    assert (two.run.checkpoints / f"step-{finish.step:08d}.safetensors").is_file()


@pytest.mark.whole_network
def test_two_processes_share_the_loss_scale_in_fp16(
    torchrun: Launcher, make_folder: FolderMaker, tmp_path: Path
) -> None:
    few = (
        "data.kind=imagefolder", f"data.root={make_folder()}", "data.batch_size=12", "run.precision=fp16",
        "run.channels_last=false",
    )  # fmt: skip
    two = torchrun(*SMALL, *few)
    assert two.end() == 0, two.output
    view = view_of(two.run)
    assert (view.step, view.nonfinite_steps) == (3, 0)
    alone = _train_alone(*few, "train.grad_accum_steps=2", runs_dir=tmp_path / "alone")
    assert list(view.train_loss.y) == pytest.approx(list(alone.train_loss.y), rel=1e-3)


class _FakePeers(Peers):
    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world


def test_the_parts_of_a_batch_form_the_whole() -> None:
    whole = BatchPlan(num_images=103, batch_size=24, drop_last=True, smallest=2, seed=1)
    order = epoch_order(103, seed=1, epoch=0)
    for step in range(whole.steps_per_epoch):
        start, rows = whole.rows_of(order, step)
        parts = [
            BatchPlan(num_images=103, batch_size=24, drop_last=True, smallest=2, seed=1, rank=rank, world=3).rows_of(
                order, step
            )
            for rank in range(3)
        ]
        assert [first for first, _ in parts] == [start, start + 8, start + 16]
        assert [row for _, part in parts for row in part.tolist()] == rows.tolist()


@pytest.mark.parametrize(("world", "refused"), [(2, False), (3, True), (32, True)])
def test_a_batch_without_equal_parts_is_refused(make_config: ConfigMaker, world: int, refused: bool) -> None:
    config: Config = make_config("data.batch_size=32", "train.grad_accum_steps=2", "data.drop_last=false")
    labels_N = epoch_order(100, seed=0, epoch=0) % 10
    if refused:
        with pytest.raises(ConfigError, match=f"must be divisible by {2 * world}"):
            plan_of(config, labels_N, _FakePeers(0, world))
    else:
        assert plan_of(config, labels_N, _FakePeers(1, world)).steps_per_epoch == 3, "the smaller last batch is dropped"
