"""Near copies among the pictures of a surveyed folder, for `init`. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.audit.near_copies import find_pairs
from trainer.audit.picture_facts import measure_files
from trainer.data.folder.survey import Survey
from trainer.host.progress import Progress

_MOST = 20_000  # pictures: comparing more takes longer than a person waits for `init`
_NAMED = 3


@dataclass(frozen=True)
class SurveyCopies:
    """Pairs of pictures that show the same but are not equal files, which the survey itself finds."""

    root: Path
    pairs: list[tuple[Path, Path]]
    across_splits: list[tuple[Path, Path]]

    def lines(self) -> list[str]:
        """The number of pairs, and a warning about those in several splits, for people."""
        lines = []
        if self.pairs:
            lines.append(
                f"  near copies   {len(self.pairs):,} pairs of pictures show the same: {self._examples(self.pairs)}; "
                f"r18-tui audit lists them"
            )
        if self.across_splits:
            lines.append(
                f"  warning       {len(self.across_splits):,} of these pairs lie in different splits, which inflates the "
                f"accuracy: {self._examples(self.across_splits)}"
            )
        return lines

    def _examples(self, pairs: list[tuple[Path, Path]]) -> str:
        named = [f"{one.relative_to(self.root)} = {other.relative_to(self.root)}" for one, other in pairs[:_NAMED]]
        return ", ".join(named) + (", ..." if len(pairs) > _NAMED else "")


def copies_in(survey: Survey, progress: Progress) -> SurveyCopies | None:
    """Near copies among all readable pictures; None where there are too many to compare in passing."""
    files = [(split, file, finding.digest) for split, usable in survey.usable.items() for file, finding in usable]
    if len(files) > _MOST:
        return None
    facts, kept, _ = measure_files([str(file.path) for _, file, _ in files], progress)
    pairs, across = [], []
    for pair in find_pairs(facts, progress):
        (one_split, one, one_digest), (other_split, other, other_digest) = (files[kept[row]] for row in pair[:2])
        if one_digest != other_digest:
            pairs.append((one.path, other.path))
            if one_split != other_split:
                across.append((one.path, other.path))
    return SurveyCopies(survey.layout.root, pairs, across)
