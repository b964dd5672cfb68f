"""Checks of a checkpoint on its way to the disk and back: one wrong value, byte, field or operation is an error."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.checkpoints import checkpoint_of
from trainer.errors import CheckpointError, DamagedCheckpointError, ForeignCheckpointError
from trainer.host.atomic_files import write_atomically
from trainer.model import checkpoint as checkpoint_module
from trainer.model.checkpoint import Checkpoint, file_name, read_checkpoint, read_metadata, step_of, write_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.folder.run_dir import RunDir

NAMES = ("ema.w", "model.w", "momentum.w")


def checkpoint(step: int = 1, **meta: Any) -> Checkpoint:
    """Three groups with one tensor each, and a counter."""
    tensors = {name: torch.arange(6.0).reshape(2, 3) + place for place, name in enumerate(NAMES)}
    return checkpoint_of(tensors | {"model.n": torch.tensor(7)}, step=step, classes=["a", "ä"], **meta)


def record_disk_operations(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """Record the order in which files of a folder are synced and renamed."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(fd: int) -> None:
        names = {path.stat().st_ino: path.name for path in (*folder.iterdir(), folder)}
        done.append(f"fsync {names.get(os.fstat(fd).st_ino, '?')}")
        fsync(fd)

    def note_replace(source: Path, target: Path) -> None:
        done.append(f"{Path(source).name} -> {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    return done


def test_a_checkpoint_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, name = record_disk_operations(monkeypatch, tmp_path), file_name(1)
    write_checkpoint(tmp_path / name, checkpoint())
    assert done == [f"fsync .{name}.tmp", f".{name}.tmp -> {name}", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_small_file_is_synced_only_if_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    done = record_disk_operations(monkeypatch, tmp_path)
    write_atomically(tmp_path / "latest", b"x", durable=durable)
    temporary = f".latest.{os.getpid()}.tmp"
    renamed = f"{temporary} -> latest"
    assert done == ([f"fsync {temporary}", renamed, f"fsync {tmp_path.name}"] if durable else [renamed])


def test_pointers_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(RunDir(tmp_path), keep=2)
    folder.path.mkdir()
    write_checkpoint(folder.at(1), checkpoint())
    done = record_disk_operations(monkeypatch, folder.path)
    folder.publish(1, best=True, pinned=True)
    renamed = [entry.split(" -> ")[1] for entry in done if " -> " in entry]
    assert renamed == ["latest", "best", "pinned"]
    assert sum(entry.startswith("fsync .") for entry in done) == 3
    assert sum(entry == "fsync checkpoints" for entry in done) == 3


def flip_bit_at(place: float) -> Callable[[Path], None]:
    """Flips one bit of a file at a share of its length."""

    def spoil(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        flip_bit_at(1.0),
        flip_bit_at(0.99),
        flip_bit_at(0.5),
        flip_bit_at(0.0),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
    ],
    ids=["last byte", "value", "metadata", "first byte", "truncated"],
)
def test_a_written_checkpoint_is_verified_before_it_replaces_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / file_name(1)
    write_checkpoint(path, checkpoint(b=1))
    before = path.read_bytes()

    def save(tensors: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, target, metadata=metadata)
        spoil(target)

    monkeypatch.setattr(checkpoint_module, "save_file", save)
    with pytest.raises(DamagedCheckpointError):
        write_checkpoint(path, checkpoint())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_with_a_single_non_finite_value_is_not_saved(tmp_path: Path, name: str, value: float) -> None:
    bad = checkpoint()
    bad.tensors[name][-1, -1] = value
    with pytest.raises(CheckpointError, match=rf"{name} holds values that are not finite"):
        write_checkpoint(tmp_path / file_name(1), bad)
    assert list(tmp_path.iterdir()) == []


def digest_by_hand(tensors: dict[str, Tensor], metadata: str) -> str:
    """The hash as documented in docs/run-directory.md."""
    text = b""
    for name in sorted(tensors):
        array = tensors[name].numpy()
        text += f"{name}\0torch.{array.dtype}\0{array.shape}\0".encode() + array.tobytes()
    return hashlib.sha256(text + metadata.encode()).hexdigest()


def json_by_hand(one: Checkpoint) -> str:
    return json.dumps(one.meta, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def test_the_hash_is_the_documented_one_for_any_memory_order(tmp_path: Path) -> None:
    one = checkpoint()
    wanted = digest_by_hand(one.tensors, json_by_hand(one))
    assert one.digest() == write_checkpoint(tmp_path / file_name(1), one) == wanted
    turned = {name: value.T.contiguous().T if value.ndim else value for name, value in reversed(one.tensors.items())}
    assert Checkpoint(turned, one.run, one.state).digest() == wanted


def changed(change: Callable[[dict[str, Tensor], dict[str, Any]], object]) -> str:
    one = checkpoint()
    meta = one.meta
    change(one.tensors, meta)
    return checkpoint_of(one.tensors, **meta).digest()


def with_a_flipped_bit(name: str) -> str:
    return changed(lambda tensors, _: tensors[name].view(torch.int32)[-1, -1].bitwise_xor_(1))


def test_the_hash_changes_with_every_single_difference() -> None:
    digests = [
        checkpoint().digest(),
        *map(with_a_flipped_bit, NAMES),
        changed(lambda t, _: t.update({"model.w": t["model.w"].reshape(3, 2)})),
        changed(lambda t, _: t.update({"model.w": t["model.w"].view(torch.int32)})),
        changed(lambda t, _: t.update({"model.v": t.pop("model.w")})),
        changed(lambda t, _: t.update({"model.w": t["ema.w"], "ema.w": t["model.w"]})),
        changed(lambda t, _: t.pop("ema.w")),
        changed(lambda t, _: t.update({"ema.v": torch.zeros(0)})),
        changed(lambda _, m: m.update({"classes": ["a", "b"]})),
        changed(lambda _, m: m.update({"versions": {"torch": "2"}})),
        changed(lambda _, m: m.update({"step": 2})),
    ]
    assert len(set(digests)) == len(digests)


def test_the_groups_of_a_checkpoint_are_separate() -> None:
    one = checkpoint()
    assert list(one.group("model")) == ["w", "n"]
    assert torch.equal(one.group("momentum")["w"], one.tensors["momentum.w"])
    assert (one.weights_kind, torch.equal(one.evaluated_weights["w"], one.tensors["ema.w"])) == ("ema", True)
    del one.tensors["ema.w"]
    assert (one.weights_kind, torch.equal(one.evaluated_weights["w"], one.tensors["model.w"])) == ("raw", True)


def write_with_header(path: Path, **header: str | None) -> Path:
    """Write a valid checkpoint with a changed header; None removes an entry."""
    one = checkpoint()
    valid = {"format": "r18-checkpoint", "version": "1", "sha256": one.digest(), "json": json_by_hand(one)}
    entries = {name: value for name, value in (valid | header).items() if value is not None}
    save_file(one.tensors, path, metadata=entries)
    return path


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        ({"format": "r18-Checkpoint"}, ForeignCheckpointError, "not a checkpoint of this program"),
        ({"format": None}, ForeignCheckpointError, "not a checkpoint of this program"),
        ({"version": "2"}, CheckpointError, r"made by a newer r18-tui \(format 2\)"),
        ({"version": None}, DamagedCheckpointError, "damaged"),
        ({"version": "x"}, DamagedCheckpointError, "damaged"),
        ({"json": None}, DamagedCheckpointError, "damaged"),
        ({"json": '{"a":[1,"ä"],"b":3,"step":1}'}, DamagedCheckpointError, "its content has hash"),
        ({"sha256": None}, DamagedCheckpointError, "its content has hash"),
        ({"sha256": "0" * 64}, DamagedCheckpointError, "expected 000000000000"),
    ],
)  # fmt: skip
def test_a_single_wrong_entry_of_the_header_is_refused(
    tmp_path: Path, header: dict[str, str | None], error: type[Exception], message: str
) -> None:
    path = tmp_path / file_name(1)
    assert read_checkpoint(write_with_header(path)).meta == checkpoint().meta
    assert read_checkpoint(write_with_header(path, version="0")).step == 1, "an earlier format is read"
    with pytest.raises(error, match=message) as caught:
        read_checkpoint(write_with_header(path, **header))
    assert caught.type is error, "only damaged checkpoints are set aside"


@pytest.mark.parametrize(
    ("best_chosen_on", "expected"), [("val", 1), ("test", 2), (None, 2)], ids=["val", "test", "no best"]
)
def test_the_default_is_the_best_chosen_on_val_or_else_the_latest(
    tmp_path: Path, best_chosen_on: str | None, expected: int
) -> None:
    folder = CheckpointFolder(RunDir(tmp_path), keep=9)
    folder.path.mkdir()
    for step in (1, 2, 3):
        write_checkpoint(folder.at(step), checkpoint(step, selection_split=best_chosen_on or "val"))
        if step < 3:  # the third one is written but not published
            folder.publish(step, best=step == 1 and best_chosen_on is not None, pinned=False)
    assert folder.choose("default") == folder.at(expected)
    assert [folder.choose(which) for which in ("latest", "3")] == [folder.at(2), folder.at(3)]
    for missing in ("4", *(["best"] if best_chosen_on is None else [])):
        with pytest.raises(CheckpointError, match=f"no checkpoint '{missing}'; steps there: 1, 2, 3"):
            folder.choose(missing)


@pytest.mark.parametrize(("aside", "latest"), [([3], 2), ([2, 3], 1), ([1], 3), ([1, 2, 3], None)])
def test_latest_points_to_a_remaining_checkpoint(tmp_path: Path, aside: list[int], latest: int | None) -> None:
    folder = CheckpointFolder(RunDir(tmp_path), keep=9)
    folder.path.mkdir()
    for step in (1, 2, 3):
        write_checkpoint(folder.at(step), checkpoint(step))
        folder.publish(step, best=False, pinned=False)
    folder.set_aside(aside, suffix=".damaged")
    assert folder.pointer("latest") == (None if latest is None else folder.at(latest))
    assert folder.steps() == [step for step in (1, 2, 3) if step not in aside]
    assert folder.at(aside[0]).with_suffix(".damaged").is_file()


def test_metadata_is_read_without_tensors_and_empty_for_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / file_name(1)
    write_checkpoint(path, checkpoint(selection_split="val"))
    assert read_metadata(path)["selection_split"] == "val"
    path.write_bytes(path.read_bytes()[:100])
    assert read_metadata(path) == read_metadata(tmp_path / "missing") == {}


def test_steps_of_nine_digits_have_a_file_name() -> None:
    assert [step_of(Path(file_name(step))) for step in (0, 12, 123_456_789)] == [0, 12, 123_456_789]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": None}, "step: Field required"), ({"classes": None}, "classes: Field required"),
        ({"step": "three"}, "step: Input should be a valid integer"),
        ({"mean": [0.5, "x"]}, "mean.1: Input should be a valid number"),
    ],
)  # fmt: skip
def test_metadata_with_a_missing_or_wrong_field_is_refused_with_its_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    one = checkpoint()
    meta = {key: value for key, value in (one.meta | change).items() if value is not None}
    text = json.dumps(meta, sort_keys=True)
    path = write_with_header(tmp_path / file_name(1), json=text, sha256=digest_by_hand(one.tensors, text))
    with pytest.raises(DamagedCheckpointError, match=message):
        read_checkpoint(path)


def test_an_older_checkpoint_keeps_the_hash_of_its_file(tmp_path: Path) -> None:
    """An older checkpoint lacks fields, but its exports name the hash that its run has logged."""
    one = checkpoint()
    older = {key: one.meta[key] for key in one.meta if key not in ("tested_step", "left_out", "shortest_plan")}
    text = json.dumps(older, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    sha256 = digest_by_hand(one.tensors, text)
    read = read_checkpoint(write_with_header(tmp_path / file_name(1), json=text, sha256=sha256))
    assert read.digest() == sha256 != one.digest()
    assert (read.state.tested_step, read.run.left_out, read.state.shortest_plan) == (-1, None, None)
