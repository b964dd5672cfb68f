"""The folder of a run's checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trainer.errors import CheckpointError, DamagedCheckpointError, ForeignCheckpointError
from trainer.host.atomic_files import replace_file, write_atomically
from trainer.model.checkpoint import _SUFFIX, Checkpoint, file_name, read_checkpoint, read_metadata, step_of
from trainer.run.folder.run_dir import RunDir


class CheckpointFolder:
    """Checkpoint files of a run, with `latest`, `best`, pins and rotation.

    Rotation also keeps the file of step `rollback_step`, the last one before non-finite steps.
    """

    def __init__(self, run_dir: RunDir, *, keep: int) -> None:
        self.rollback_step: int | None = None
        self._run_dir = run_dir
        self._keep = keep

    @property
    def path(self) -> Path:
        """Path of the folder."""
        return self._run_dir.checkpoints

    def steps(self) -> list[int]:
        """Steps that have a file, in rising order."""
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
        # The pointer is only ever a name in this folder, whatever the file contains.
        return target if step_of(target) is not None and target.parent == self.path and target.is_file() else None

    def publish(self, step: int, *, best: bool, pinned: bool) -> None:
        """Point `latest` (and `best`) to a step, record a pin, and delete what rotation no longer keeps."""
        self._point("latest", step)
        if best:
            self._point("best", step)
        if pinned:
            names = sorted(self._pinned() | {file_name(step)})
            write_atomically(self.path / "pinned", "".join(f"{name}\n" for name in names).encode(), durable=True)
        self._rotate()

    def choose(self, which: str) -> Path:
        """The checkpoint that a user names: `best`, `latest`, a step, or `default`; CheckpointError when there is none.

        `default` is `best` where it was chosen on val, else `latest`: the best on the test images has an inflated
        accuracy.
        """
        if which == "default":
            best = self.pointer("best")
            which = "best" if best is not None and read_metadata(best).get("selection_split") == "val" else "latest"
        path = self.at(int(which)) if which.isdecimal() else self.pointer(which)
        if path is None or not path.is_file():
            there = ", ".join(str(step) for step in self.steps()) or "none"
            raise CheckpointError(f"{self.path}: no checkpoint {which!r}; steps there: {there}")
        return path

    def newest_valid(self) -> tuple[Checkpoint | None, dict[int, str]]:
        """The newest undamaged checkpoint, and the problems, by step, of the newer ones that were skipped.

        CheckpointError when one cannot be read but is not damaged: resuming from an older one would lose steps.
        """
        problems: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                return read_checkpoint(self.at(step)), problems
            except (DamagedCheckpointError, ForeignCheckpointError) as error:
                problems[step] = str(error)
        return None, problems

    def set_aside(self, steps: Iterable[int], *, suffix: str) -> None:
        """Rename checkpoints to `.damaged` or `.given-up`, so that a resume, rotation and `latest` ignore them."""
        for step in steps:
            path = self.at(step)
            replace_file(path, path.with_suffix(suffix))
        left = self.steps()
        if left and self.pointer("latest") is None:
            self._point("latest", left[-1])

    def point_best(self, step: int) -> bool:
        """Point `best` to the file of a step, and return whether that file exists."""
        there = self.at(step).is_file()
        if there:
            self._point("best", step)
        return there

    def _point(self, pointer: str, step: int) -> None:
        write_atomically(self.path / pointer, f"{file_name(step)}\n".encode(), durable=True)

    def _pinned(self) -> set[str]:
        try:
            return set((self.path / "pinned").read_text().split())
        except FileNotFoundError:
            return set()

    def _rotate(self) -> None:
        best = self.pointer("best")
        protected = self._pinned() | ({best.name} if best else set())
        if self.rollback_step is not None:
            protected.add(file_name(self.rollback_step))
        for step in self.steps()[: -self._keep]:
            if file_name(step) not in protected:
                self.at(step).unlink(missing_ok=True)
