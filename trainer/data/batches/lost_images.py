"""Images that could be read when the run began and cannot be any more: a removed file, a share that does not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainer.errors import DataLostError

TRAINING_NEEDS = 2
"""Images that a batch of training keeps: batch norm needs two to have a variance."""

_A_FEW = 3
"""Lost images of one batch that say nothing about the folder, however small the batch."""


class LostImages:
    """Names each lost image once, and gives up where most of a batch is lost."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._named: set[str] = set()

    def note(self, lost: Sequence[tuple[str, str]], asked_for: int, *, least: int = 0) -> None:
        """Take note of a batch's lost images.

        Args:
            lost: Path and reason of each.
            asked_for: Size of the batch that they are missing from.
            least: Images that must be left of it.

        Raises:
            DataLostError: When less than these, or less than half of the batch is left: then the folder is gone, not an image.
        """
        if not lost:
            return
        path, reason = lost[0]
        left = asked_for - len(lost)
        if left < least or (len(lost) > _A_FEW and left < asked_for / 2):
            raise DataLostError(
                f"{path}: was readable at the start and is not now: {reason} ({len(lost)} of {asked_for} images of a batch); "
                f"bring the folder back, then resume"
            )
        for path, reason in lost:
            if path not in self._named:
                self._named.add(path)
                self._warn(f"{path}: was readable at the start and is not now, so it is left out: {reason}")
