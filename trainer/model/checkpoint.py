"""Our checkpoint format: one safetensors file that holds every tensor, all else as JSON in its metadata, and a hash.

No unpickler is involved. The hash covers sorted tensor names, dtypes, shapes and bytes and the canonical JSON, and is
checked before anything is used: safetensors files of equal content differ from save to save, and a flipped byte in one
loads without a word.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from trainer.errors import CheckpointError, DamagedCheckpointError, ForeignCheckpointError
from trainer.host.atomic_files import replace_file, set_mode, sync, sync_folder, write_atomically
from trainer.model.model_files import kind_of_file
from trainer.model.tensor_header import header_in, read_header
from trainer.run.folder.run_dir import RunDir

FORMAT = "r18-checkpoint"
FORMAT_VERSION = 1

_SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A snapshot of a run.

    Attributes:
        tensors: `model.*` (parameters and buffers) and `momentum.*`, contiguous, on the CPU.
        meta: Everything else, as plain JSON data; `docs/run-directory.md` lists it.
    """

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix such as `model`, without it."""
        return {name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(prefix + ".")}

    @property
    def measured_weights(self) -> dict[str, Tensor]:
        """What was evaluated and is exported: the average of the weights where one was kept, else the weights."""
        return self.group("ema") or self.group("model")

    @property
    def weights_kind(self) -> str:
        """Which these are: `ema` or `raw`."""
        return "ema" if self.group("ema") else "raw"

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.meta["step"])

    def digest(self) -> str:
        """SHA-256 of the content, the same for every file that holds it."""
        return _digest(self.tensors, _canonical(self.meta))


def file_name(step: int) -> str:
    """Name of the checkpoint of a step; sorts by step."""
    return f"step-{step:08d}{_SUFFIX}"


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's name; None for any other file."""
    stem = path.name.removesuffix(_SUFFIX).removeprefix("step-")
    return int(stem) if stem.isdecimal() and path.name == file_name(int(stem)) else None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write, wait for the disk, read back, compare, publish.

    Args:
        path: Final name; replaced in one go, after the new file has been proven whole.
        checkpoint: What to write.

    Returns:
        The content's SHA-256.

    Raises:
        CheckpointError: When a weight is not finite, or what was read back differs.
        OSError: When the disk is full or cannot be written.
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
    """The tensors and the metadata of a safetensors file.

    It is read and not mapped: some network disks refuse that, and a mapped file that is cut short kills the process (SIGBUS).

    Raises:
        OSError: When it cannot be read.
        SafetensorError: When it is not a whole safetensors file.
    """
    data = path.read_bytes()
    return load(data), header_in(io.BytesIO(data)).get("__metadata__", {})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and prove it whole.

    Raises:
        CheckpointError: When it is missing, unreadable or of a newer version.
        ForeignCheckpointError: When it is of another format.
        DamagedCheckpointError: When it is truncated or altered.
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
        # Not the file's fault, as far as one can know: it is neither called damaged nor set aside.
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
    return Checkpoint(tensors, orjson.loads(canonical))


class CheckpointFolder:
    """The checkpoints of a run: what is there, `latest`, `best`, pins and rotation.

    Attributes:
        way_back: A step whose file rotation leaves alone: the last one before steps that are not finite.
    """

    def __init__(self, run_dir: RunDir, *, keep: int) -> None:
        self.way_back: int | None = None
        self._run_dir = run_dir
        self._keep = keep

    @property
    def path(self) -> Path:
        """The folder."""
        return self._run_dir.checkpoints

    def steps(self) -> list[int]:
        """Steps that have a file, rising."""
        return sorted(step for path in self.path.glob(f"step-*{_SUFFIX}") if (step := step_of(path)) is not None)

    def at(self, step: int) -> Path:
        """The file of a step."""
        return self.path / file_name(step)

    def pointer(self, name: str) -> Path | None:
        """The file that `latest` or `best` points to; None when there is none."""
        try:
            target = self.path / (self.path / name).read_text().strip()
        except OSError:
            return None
        # The pointer is only ever a name of this folder, whatever somebody wrote into it.
        return target if step_of(target) is not None and target.parent == self.path and target.is_file() else None

    def publish(self, step: int, *, best: bool, pinned: bool) -> None:
        """Point `latest` (and `best`) to a step, remember a pin, and remove what rotation gives up."""
        name = file_name(step)
        write_atomically(self.path / "latest", f"{name}\n".encode(), durable=True)
        if best:
            write_atomically(self.path / "best", f"{name}\n".encode(), durable=True)
        if pinned:
            write_atomically(
                self.path / "pinned", "".join(f"{n}\n" for n in sorted(self._pinned() | {name})).encode(), durable=True
            )
        self._rotate()

    def choose(self, which: str) -> Path:
        """The checkpoint that a user means.

        Args:
            which: `best`, `latest`, a step, or `default`: `best` where it was chosen on val, else `latest`, since a best
                that was chosen on the test images flatters itself.

        Raises:
            CheckpointError: When there is none; the message lists what is there.
        """
        if which == "default":
            best = self.pointer("best")
            which = "best" if best is not None and facts_of(best).get("selection_split") == "val" else "latest"
        path = self.at(int(which)) if which.isdecimal() else self.pointer(which)
        if path is None or not path.is_file():
            there = ", ".join(str(step) for step in self.steps()) or "none"
            raise CheckpointError(f"{self.path}: no checkpoint {which!r}; steps there: {there}")
        return path

    def newest_valid(self) -> tuple[Checkpoint | None, dict[int, str]]:
        """The newest checkpoint that is whole, and why newer ones (by step) were passed over.

        Raises:
            CheckpointError: When one cannot be read for another reason than damage; going on from an older one would
                lose steps that are still there.
        """
        problems: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                return read_checkpoint(self.at(step)), problems
            except (DamagedCheckpointError, ForeignCheckpointError) as error:
                problems[step] = str(error)
        return None, problems

    def set_aside(self, steps: Iterable[int], *, suffix: str) -> None:
        """Rename checkpoints, so that neither a resume nor rotation nor `latest` takes them for the newest good ones.

        Args:
            steps: Of the checkpoints.
            suffix: In place of theirs: `.damaged`, `.given-up`.
        """
        for step in steps:
            path = self.at(step)
            replace_file(path, path.with_suffix(suffix))
        left = self.steps()
        if left and self.pointer("latest") is None:
            write_atomically(self.path / "latest", f"{file_name(left[-1])}\n".encode(), durable=True)

    def point_best(self, step: int) -> bool:
        """Point `best` to the file of a step; whether there is one."""
        there = self.at(step).is_file()
        if there:
            write_atomically(self.path / "best", f"{file_name(step)}\n".encode(), durable=True)
        return there

    def _pinned(self) -> set[str]:
        try:
            return set((self.path / "pinned").read_text().split())
        except FileNotFoundError:
            return set()

    def _rotate(self) -> None:
        best = self.pointer("best")
        protected = self._pinned() | ({best.name} if best else set())
        if self.way_back is not None:
            protected.add(file_name(self.way_back))
        for step in self.steps()[: -self._keep]:
            if file_name(step) not in protected:
                self.at(step).unlink(missing_ok=True)


def facts_of(path: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors, which are not read; empty when it is damaged, as reading it in full will say."""
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
