"""Handles images that are no longer readable: a removed file, a share that does not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainer.errors import DataLostError

MIN_TRAINING_IMAGES = 2  # fewest images left in a training batch: batch norm needs two for a variance
_TOLERATED_LOSSES = 3  # lost images that do not mean that the folder is gone, however small the batch


class LostImages:
    """Reports each lost image once, and raises where most of a batch is lost."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._named: set[str] = set()

    def note(self, lost: Sequence[tuple[str, str]], asked_for: int, *, least: int = 0) -> None:
        """Report a batch's lost images (path and reason); `asked_for` is the batch's size before the loss.

        DataLostError when fewer than `least`, or less than half of the batch, are left: the folder is gone.
        """
        if not lost:
            return
        path, reason = lost[0]
        left = asked_for - len(lost)
        if left < least or (len(lost) > _TOLERATED_LOSSES and left < asked_for / 2):
            raise DataLostError(
                f"{path}: was readable at the start and no longer is: {reason} ({len(lost)} of {asked_for} images of a batch); "
                f"restore the folder, then resume"
            )
        for path, reason in lost:
            if path not in self._named:
                self._named.add(path)
                self._warn(f"{path}: was readable at the start and no longer is, so it is skipped: {reason}")
