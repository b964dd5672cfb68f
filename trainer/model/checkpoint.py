"""Our checkpoint format: one safetensors file that holds every tensor, all else as JSON in its metadata, and a hash.

No unpickler is involved. The hash covers sorted tensor names, dtypes, shapes and bytes and the canonical JSON, and is
checked before anything is used: safetensors files of equal content differ from save to save, and load with flipped bytes.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from trainer.errors import CheckpointError, DamagedCheckpointError, ForeignCheckpointError
from trainer.host.atomic_files import replace_file, set_mode, sync, sync_folder
from trainer.model.checkpoint_records import RunRecord, StateRecord, records_in
from trainer.model.model_files import kind_of_file
from trainer.model.tensor_header import header_in, read_header

FORMAT = "r18-checkpoint"
FORMAT_VERSION = 1

_SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A snapshot of a run."""

    tensors: dict[str, Tensor]  # `model.*`, with its buffers, `momentum.*` and perhaps `ema.*`, contiguous, on the CPU
    run: RunRecord
    state: StateRecord
    recorded_digest: str | None = None  # SHA-256 in the file that it was read from; None where there is no such file

    @property
    def meta(self) -> dict[str, Any]:
        """Everything but tensors, as the plain JSON data of the file; `docs/run-directory.md` lists it."""
        return vars(self.run) | vars(self.state)

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix such as `model`, without it."""
        return {name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(prefix + ".")}

    @property
    def evaluated_weights(self) -> dict[str, Tensor]:
        """The weights that are evaluated and exported: their average where one is kept."""
        return self.group("ema") or self.group("model")

    @property
    def weights_kind(self) -> str:
        """Kind of the evaluated weights: `ema` or `raw`."""
        return "ema" if self.group("ema") else "raw"

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    def digest(self) -> str:
        """SHA-256 of the content, the same for every file that holds it."""
        return self.recorded_digest or _digest(self.tensors, _canonical(self.meta))


def file_name(step: int) -> str:
    """Name of the checkpoint of a step; sorts by step."""
    return f"step-{step:08d}{_SUFFIX}"


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's name; None for any other file."""
    stem = path.name.removesuffix(_SUFFIX).removeprefix("step-")
    return int(stem) if stem.isdecimal() and path.name == file_name(int(stem)) else None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint durably: write, flush to the disk, read back, compare, replace `path`. Returns its SHA-256.

    CheckpointError when a weight is not finite or the content read back differs; OSError when the disk is full or fails.
    """
    _refuse_nonfinite(checkpoint)
    canonical = _canonical(checkpoint.meta)
    digest = _digest(checkpoint.tensors, canonical)
    header = {"format": FORMAT, "version": str(FORMAT_VERSION), "sha256": digest, "json": canonical.decode()}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(checkpoint.tensors, temporary, metadata=header)
        set_mode(temporary, 0o600)
        with temporary.open("rb+") as file:
            sync(file.fileno())
        read_checkpoint(temporary)
        replace_file(temporary, path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return digest


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file; SafetensorError when it is incomplete, OSError.

    It is read, not mapped: some network disks refuse that, and a mapped file that is cut short kills the process (SIGBUS).
    """
    data = path.read_bytes()
    return load(data), header_in(io.BytesIO(data)).get("__metadata__", {})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its hash; CheckpointError when it is missing, unreadable or of a newer version.

    ForeignCheckpointError when the file has another format, DamagedCheckpointError when it is truncated or altered.
    """
    try:
        tensors, header = read_tensors(path)
        if header.get("format") != FORMAT:
            raise ForeignCheckpointError(
                f"{path}: not a checkpoint of this program; use it with model.init_from={path}"
            )
        if int(header["version"]) > FORMAT_VERSION:
            raise CheckpointError(f"{path}: made by a newer r18-tui (format {header['version']}); update r18-tui")
        canonical = header["json"].encode()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except OSError as error:
        # The file may be intact: it is neither called damaged nor set aside.
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    except (SafetensorError, KeyError, ValueError) as error:
        kind = kind_of_file(path, ".safetensors")
        raise DamagedCheckpointError(
            f"{path}: damaged{f', or no checkpoint{kind}' if kind else f': {error}'}"
        ) from error
    found = _digest(tensors, canonical)
    if found != header.get("sha256"):
        raise DamagedCheckpointError(
            f"{path}: damaged: its content has hash {found[:12]}, expected {header.get('sha256', '')[:12]}"
        )
    try:
        return Checkpoint(tensors, *records_in(orjson.loads(canonical)), recorded_digest=found)
    except ValueError as error:
        raise DamagedCheckpointError(f"{path}: damaged: {error}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """A checkpoint's metadata, without reading its tensors; empty when the file is damaged, which a full read reports."""
    try:
        facts = orjson.loads(read_header(path)["__metadata__"]["json"])
    except (OSError, KeyError, TypeError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _refuse_nonfinite(checkpoint: Checkpoint) -> None:
    for name, tensor in checkpoint.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} holds values that are not finite; this state is not saved")


def _canonical(meta: dict[str, Any]) -> bytes:
    return orjson.dumps(meta, option=orjson.OPT_SORT_KEYS)


def _digest(tensors: dict[str, Tensor], canonical: bytes) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    digest.update(canonical)
    return digest.hexdigest()
