"""Checkpoints: files, rotation, and the thread that writes them."""

from __future__ import annotations

import queue
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import checkpoint_of, ready
from trainer.errors import CheckpointError
from trainer.model.checkpoint import Checkpoint, file_name, read_checkpoint, step_of, write_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import read_records
from trainer.run.log.result_events import CheckpointFailed, CheckpointSaved
from trainer.run.log.writer import EventLog
from trainer.session.checkpoint_writer import CheckpointWriter


@pytest.fixture(name="tmp_path")
def folder_of_checkpoints(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


def checkpoint(step: int = 1, value: float = 1.0) -> Checkpoint:
    tensors = {"model.w": torch.full((3, 4), value), "momentum.w": torch.arange(12.0).reshape(3, 4)}
    return checkpoint_of(tensors | {"model.n": torch.tensor(7)}, step=step, classes=["ä", "b"], lr_edits=[[3, 0.5]])


def test_a_checkpoint_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    written = checkpoint()
    digest = write_checkpoint(tmp_path / file_name(1), written)
    read = read_checkpoint(tmp_path / file_name(1))
    assert read.meta == written.meta
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in written.tensors.items())
    assert set(read.tensors) == set(written.tensors)
    assert read.digest() == digest == written.digest()
    assert list(tmp_path.iterdir()) == [tmp_path / file_name(1)], "no temporary file is left"


def test_the_hash_covers_values_names_and_metadata() -> None:
    base = checkpoint()
    renamed = checkpoint_of({("model.v" if k == "model.w" else k): v for k, v in base.tensors.items()}, **base.meta)
    others = [checkpoint(value=1.5), checkpoint(step=2), renamed]
    assert len({base.digest(), *(other.digest() for other in others)}) == 4


@pytest.mark.parametrize("where", [0.2, 0.5, 0.9, 0.999])
def test_a_flipped_byte_is_found(tmp_path: Path, where: float) -> None:
    path = tmp_path / file_name(1)
    write_checkpoint(path, checkpoint())
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_truncated_foreign_and_missing_files_are_explained(tmp_path: Path) -> None:
    path = tmp_path / file_name(1)
    write_checkpoint(path, checkpoint())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        read_checkpoint(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "missing.safetensors")


def test_non_finite_weights_are_never_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.w holds values that are not finite"):
        write_checkpoint(tmp_path / file_name(1), checkpoint(value=float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_only_names_of_checkpoints_have_a_step() -> None:
    assert step_of(Path("step-00000012.safetensors")) == 12
    for name in ("step-12.safetensors", "step-00000012.pt", ".step-00000012.safetensors.tmp", "latest"):
        assert step_of(Path(name)) is None


def test_rotation_keeps_the_newest_the_best_and_all_pins(tmp_path: Path) -> None:
    folder = CheckpointFolder(RunDir(tmp_path.parent), keep=2)
    for step in range(1, 8):
        write_checkpoint(folder.at(step), checkpoint(step))
        folder.publish(step, best=step == 3, pinned=step in (1, 2))
    assert folder.steps() == [1, 2, 3, 6, 7]
    assert folder.pointer("latest") == folder.at(7)
    assert folder.pointer("best") == folder.at(3)


def test_rotation_keeps_the_rollback_checkpoint_and_best_can_move_to_it(tmp_path: Path) -> None:
    folder = CheckpointFolder(RunDir(tmp_path.parent), keep=2)
    folder.rollback_step = 1
    for step in range(1, 6):
        write_checkpoint(folder.at(step), checkpoint(step))
        folder.publish(step, best=step == 5, pinned=False)
    assert folder.steps() == [1, 4, 5]
    folder.set_aside([4, 5], suffix=".given-up")
    assert folder.pointer("best") is None
    assert not folder.point_best(3)
    assert folder.point_best(1)
    assert folder.pointer("best") == folder.at(1)


def test_a_pointer_out_of_the_folder_is_ignored(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write_checkpoint(outside / file_name(1), checkpoint())
    inside = tmp_path / "run" / "checkpoints"
    inside.mkdir(parents=True)
    (inside / "latest").write_text(f"../outside/{file_name(1)}\n")
    assert CheckpointFolder(RunDir(inside.parent), keep=2).pointer("latest") is None


def test_the_newest_intact_checkpoint_is_selected(tmp_path: Path) -> None:
    folder = CheckpointFolder(RunDir(tmp_path.parent), keep=5)
    for step in (1, 2, 3):
        write_checkpoint(folder.at(step), checkpoint(step))
    folder.at(3).write_bytes(folder.at(3).read_bytes()[:100])
    newest, problems = folder.newest_valid()
    assert newest is not None
    assert newest.step == 2
    assert list(problems) == [3]
    assert "step-00000003" in problems[3]
    folder.set_aside(problems, suffix=".damaged")
    assert folder.steps() == [1, 2]


def test_a_file_of_another_format_is_skipped_but_an_unreadable_one_is_an_error(tmp_path: Path) -> None:
    folder = CheckpointFolder(RunDir(tmp_path.parent), keep=5)
    write_checkpoint(folder.at(1), checkpoint(1))
    save_file({"w": torch.zeros(2)}, folder.at(2))
    newest, problems = folder.newest_valid()
    assert newest is not None
    assert (newest.step, list(problems)) == (1, [2])
    folder.at(3).mkdir()  # stands in for a file that the system cannot read at the moment
    with pytest.raises(CheckpointError, match="cannot be read"):
        folder.newest_valid()


def test_the_writer_publishes_saved_checkpoints(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    folder = CheckpointFolder(RunDir(tmp_path.parent), keep=2)
    writer = CheckpointWriter(folder, log)
    writer.submit(ready(checkpoint(5)), pinned=True)
    assert writer.wait_for(5, timeout=10) == ""
    writer.close()
    log.close()
    saved = [r.event for r in read_records(tmp_path / "events.jsonl") if isinstance(r.event, CheckpointSaved)]
    assert [(event.step, event.pinned, event.sha256) for event in saved] == [(5, True, checkpoint(5).digest())]


def test_a_full_disk_is_reported_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    folder = CheckpointFolder(RunDir(tmp_path.parent), keep=2)
    writer = CheckpointWriter(folder, log, free_bytes=lambda _: shutil.disk_usage(tmp_path).free)
    writer.submit(ready(checkpoint(1)))
    assert writer.wait_for(1, timeout=10) == ""
    writer.close()
    full = CheckpointWriter(folder, log, free_bytes=lambda _: 1000)
    full.submit(ready(checkpoint(2)))
    assert "free space" in str(full.wait_for(2, timeout=10))
    full.close()
    log.close()
    failed = [r.event for r in read_records(tmp_path / "events.jsonl") if isinstance(r.event, CheckpointFailed)]
    assert [event.step for event in failed] == [2]
    assert folder.pointer("latest") == folder.at(1)


def test_an_unwritten_best_and_a_pin_are_retried(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    folder = CheckpointFolder(RunDir(tmp_path.parent), keep=1)
    space = [0]
    writer = CheckpointWriter(folder, log, free_bytes=lambda _: space[0])
    writer.submit(ready(checkpoint(1)), best=True)
    assert "free space" in str(writer.wait_for(1, timeout=10))
    writer.submit(ready(checkpoint(2)), pinned=True)
    assert "free space" in str(writer.wait_for(2, timeout=10))
    space[0] = 1 << 40
    writer.submit(ready(checkpoint(2)))
    assert writer.wait_for(2, timeout=10) == ""
    assert folder.pointer("best") == folder.at(1)
    writer.submit(ready(checkpoint(3)))
    assert writer.wait_for(3, timeout=10) == ""
    assert folder.steps() == [1, 2, 3], "the best, the pin, the newest"
    space[0] = 0
    writer.submit(ready(checkpoint(4)), best=True)
    assert "free space" in str(writer.wait_for(4, timeout=10))
    space[0] = 1 << 40
    writer.forget_unsaved()
    writer.submit(ready(checkpoint(5)))
    writer.close()
    log.close()
    assert folder.steps() == [1, 2, 5]


ENOUGH_BYTES, NO_BYTES = 1 << 40, 0


def stepwise_writer(tmp_path: Path) -> tuple[CheckpointWriter, CheckpointFolder, queue.Queue[int]]:
    """A writer that takes the free space before each checkpoint from a queue."""
    folder, free_space = CheckpointFolder(RunDir(tmp_path.parent), keep=9), queue.Queue[int]()
    log = EventLog(tmp_path / "events.jsonl")
    return CheckpointWriter(folder, log, free_bytes=lambda _: free_space.get(timeout=10)), folder, free_space


def test_an_unwritten_best_is_replaced_by_a_newer_one(tmp_path: Path) -> None:
    writer, folder, free_space = stepwise_writer(tmp_path)
    writer.submit(ready(checkpoint(10)), best=True)
    while writer._jobs:
        pass
    writer.submit(ready(checkpoint(20)), best=True)
    free_space.put(NO_BYTES)
    free_space.put(ENOUGH_BYTES)
    assert writer.wait_for(20, timeout=10) == ""
    assert "free space" in str(writer.wait_for(10, timeout=10))
    writer.submit(ready(checkpoint(30)))
    free_space.put(ENOUGH_BYTES)
    writer.close()
    assert folder.pointer("best") == folder.at(20)
    assert folder.steps() == [20, 30]


def test_a_newer_state_of_a_step_is_not_reported_saved_too_early(tmp_path: Path) -> None:
    writer, folder, free_space = stepwise_writer(tmp_path)
    writer.submit(ready(checkpoint(5)))
    while writer._jobs:
        pass
    writer.submit(ready(checkpoint(5)))
    free_space.put(ENOUGH_BYTES)
    assert writer.wait_for(5, timeout=0.5) is None, "only the older state is written"
    free_space.put(NO_BYTES)
    assert "free space" in str(writer.wait_for(5, timeout=10))
    writer.submit(ready(checkpoint(6)), best=True, pinned=True)
    while writer._jobs:
        pass
    writer.submit(ready(checkpoint(6)))
    free_space.put(NO_BYTES)
    free_space.put(ENOUGH_BYTES)
    assert writer.wait_for(6, timeout=10) == ""
    writer.close()
    assert folder.pointer("best") == folder.at(6), "the flags hold for the newer state"
    assert folder._pinned() == {file_name(6)}


def test_a_waiting_snapshot_is_replaced_but_best_and_pin_are_kept(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    folder = CheckpointFolder(RunDir(tmp_path.parent), keep=9)
    gate = threading.Event()

    def free(_: CheckpointFolder) -> int:
        gate.wait(30)
        return 1 << 40

    writer = CheckpointWriter(folder, log, free_bytes=free)
    writer.submit(ready(checkpoint(1)))  # blocked until the gate opens
    while writer._jobs:
        pass
    writer.submit(ready(checkpoint(2)))
    writer.submit(ready(checkpoint(3)), pinned=True)
    writer.submit(ready(checkpoint(4)), best=True)
    writer.submit(ready(checkpoint(5)))
    writer.submit(ready(checkpoint(6)), best=True)
    writer.submit(ready(checkpoint(6)))  # the same step again, while it waits
    gate.set()
    writer.close()
    log.close()
    assert folder.steps() == [1, 3, 6]
    assert folder.pointer("best") == folder.at(6)
