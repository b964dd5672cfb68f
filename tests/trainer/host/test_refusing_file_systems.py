"""File systems that refuse an operation (SMB, FAT, FUSE, NFS without locks): a run saves by other means."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import checkpoint_of
from trainer.errors import RunError
from trainer.host import atomic_files as atomic
from trainer.host import health
from trainer.host.atomic_files import free_bytes, probe, umask_mode, write_atomically
from trainer.model.checkpoint import Checkpoint, read_checkpoint, read_tensors, write_checkpoint
from trainer.model.tensor_header import read_header
from trainer.run.folder import lock as run_lock
from trainer.run.folder.lock import RunLock, is_live, presence, read_owner
from trainer.run.folder.run_dir import RunDir
from trainer.run.status import LOST_AFTER_S, Presence


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def checkpoint(step: int = 3) -> Checkpoint:
    tensors = {"model.weight": torch.randn(4, 3), "model.count": torch.tensor(step), "model.none": torch.zeros(0, 2)}
    return checkpoint_of(tensors, step=step)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("chmod", errno.EPERM), ("chmod", errno.ENOTSUP), ("fsync", errno.EINVAL), ("fsync", errno.ENOSYS),
        ("replace", errno.EACCES), ("replace", errno.EEXIST), ("replace", errno.EBUSY), ("replace", errno.ENOSYS),
        ("link", errno.EPERM),
    ],
)  # fmt: skip
def test_a_checkpoint_is_saved_although_an_operation_is_refused(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "step-00000003.safetensors"
    write_checkpoint(path, checkpoint())
    monkeypatch.setattr(os, name, refusing(number))
    again = checkpoint()
    assert write_checkpoint(path, again) == read_checkpoint(path).digest() == again.digest()
    write_atomically(tmp_path / "latest", b"old", durable=True)
    write_atomically(tmp_path / "latest", b"new", durable=True)
    assert (tmp_path / "latest").read_bytes() == b"new"
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "step-00000003.safetensors"}


@pytest.mark.parametrize(("name", "number"), [("fsync", errno.EIO), ("fsync", errno.ENOSPC), ("replace", errno.ENOSPC)])
def test_disk_errors_are_not_taken_for_refused_operations(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, name, refusing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        write_checkpoint(tmp_path / "step-00000003.safetensors", checkpoint())
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_read_where_files_cannot_be_mapped(tmp_path: Path) -> None:
    """A named pipe stands in: mapping it fails with ENODEV, as on FUSE with direct I/O."""
    written = tmp_path / "step-00000003.safetensors"
    write_checkpoint(written, checkpoint())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(written.read_bytes()))
    feeder.start()
    assert read_checkpoint(pipe).digest() == read_checkpoint(written).digest()
    feeder.join()


def test_files_are_read_as_by_safetensors(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(3), "empty": torch.zeros(0, 2), "half": torch.randn(2, 3).half(),
        "bf16": torch.randn(5).bfloat16(), "flags": torch.tensor([True, False]),
    }  # fmt: skip
    for metadata in ({"a": "ü\n"}, None):
        save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
        read, strings = read_tensors(tmp_path / "x.safetensors")
        assert strings == (metadata or {})
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], tensors[name]) for name in tensors)
        header = read_header(tmp_path / "x.safetensors")
        assert {name: header[name]["shape"] for name in tensors} == {n: list(t.shape) for n, t in tensors.items()}


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\2\0\0\0\0\0\0\0[]", b"<html>a page instead</html>"])
def test_other_files_have_no_safetensors_header(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_without_locks_a_recent_log_means_a_live_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    run = RunDir(tmp_path)
    run.events.write_bytes(b"")
    owner = RunLock.take(run)
    assert is_live(run)
    with pytest.raises(RunError, match="cannot lock files"):
        RunLock.take(run)
    os.utime(run.events, (time.time() - LOST_AFTER_S - 1,) * 2)
    assert (is_live(run), presence(run)) == (False, Presence.UNKNOWN)
    RunLock.take(run).release()
    os.utime(run.events)
    owner.release()
    assert (is_live(run), presence(run)) == (False, Presence.GONE), "an ended run is not live"


def test_a_process_id_of_another_container_is_not_suggested(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    lock = RunLock.take(run)
    inside = read_owner(run) or {}
    assert run_lock.stop_advice(inside) == f"stop it with: kill -TERM {os.getpid()}"
    for elsewhere in ({"pid_namespace": "pid:[1]"}, {"boot_id": "another", "host": "gpu-box-7"}):
        run.trainer.write_bytes(orjson.dumps(inside | elsewhere))
        with pytest.raises(RunError) as refused:
            RunLock.take(run)
        assert "kill" not in str(refused.value)
        assert "its own container" in str(refused.value)
    del inside["pid_namespace"]  # written by an older version
    assert run_lock.pid_here(inside) == os.getpid()
    lock.release()


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_public_file_has_the_mode_of_the_umask(umask: int, tmp_path: Path) -> None:
    code = (
        f"import os; os.umask({umask}); from pathlib import Path; from trainer.host.atomic_files import *\n"
        f"write_atomically(Path('a'), b'', private=False); write_atomically(Path('b'), b''); open('c', 'w'); print(umask_mode())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, text=True
    ).stdout
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"a": modes["c"], "b": 0o600, "c": 0o666 & ~umask}
    assert int(printed) == modes["c"]
    assert umask_mode() == umask_mode(), "reading the umask does not change it"


def test_missing_abilities_of_a_file_system_are_reported_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert probe(tmp_path)
    monkeypatch.setattr(os, "replace", refusing(errno.EACCES))
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    assert not probe(tmp_path)
    assert any("cannot lock files" in line for line in health.preflight(tmp_path))
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    assert any("run folder" in line and os.strerror(errno.EIO) in line for line in health.preflight(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("usage", [(0, 0, 0), OSError(errno.ENOSYS, "x"), OSError(errno.EIO, "y")])
def test_a_file_system_of_unknown_size_is_not_full(usage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_usage(_: Path) -> Any:
        if isinstance(usage, OSError):
            raise usage
        return shutil._ntuple_diskusage(*usage)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    if isinstance(usage, OSError) and usage.errno == errno.EIO:
        with pytest.raises(OSError, match="y"):
            free_bytes(tmp_path)
    else:
        assert free_bytes(tmp_path) == math.inf


def test_a_file_that_cannot_be_replaced_is_written_in_place_or_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link is not followed: a run must not write outside its folder."""
    elsewhere, link, plain = tmp_path / "elsewhere", tmp_path / "latest", tmp_path / "best"
    elsewhere.write_text("not ours")
    link.symlink_to(elsewhere)
    plain.write_text("old")

    def refuse(*_paths: object) -> None:
        raise OSError(errno.EPERM, "refused")

    monkeypatch.setattr(os, "replace", refuse)
    atomic.write_atomically(plain, b"new")
    assert plain.read_text() == "new"
    with pytest.raises(OSError, match="symbolic link"):
        atomic.write_atomically(link, b"new")
    assert elsewhere.read_text() == "not ours"

    def full(_fd: int) -> None:
        monkeypatch.setattr(atomic, "sync", lambda _fd: None)
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(atomic, "sync", full)
    with pytest.raises(OSError, match="no room"):
        atomic.write_atomically(plain, b"newer")
    assert plain.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "elsewhere", "latest"]
