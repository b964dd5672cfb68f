"""Near copies among the pictures of a surveyed folder, for `init`. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.audit.near_copies import connected, find_pairs
from trainer.audit.picture_facts import measure_files
from trainer.data.folder.survey import Survey
from trainer.host.progress import Progress

_MOST = 20_000  # pictures: comparing more takes longer than a person waits for `init`
_NAMED = 3


@dataclass(frozen=True)
class SurveyCopies:
    """Sets of pictures that show the same without being equal files, which the survey itself finds."""

    root: Path
    sets: list[list[Path]]
    across_splits: list[list[Path]]  # those of them with pictures in several splits
    flat: bool  # whether the folder has no splits

    def lines(self) -> list[str]:
        """The number of sets, and a warning about those in several splits, for people."""
        if not self.sets:
            return []
        divided = "; a split drawn at random puts copies on both sides" if self.flat else ""
        lines = [f"  near copies   {_sets(self.sets)}: {self._examples(self.sets)}; r18-tui audit lists them{divided}"]
        if self.across_splits:
            lines.append(
                f"  warning       {_sets(self.across_splits)} in different splits, which inflates the accuracy: "
                f"{self._examples(self.across_splits)}"
            )
        return lines

    def _examples(self, sets: list[list[Path]]) -> str:
        named = [" = ".join(str(path.relative_to(self.root)) for path in one[:2]) for one in sets[:_NAMED]]
        return ", ".join(named) + (", ..." if len(sets) > _NAMED else "")


def copies_in(survey: Survey, progress: Progress) -> SurveyCopies | None:
    """Near copies among all readable pictures; None where there are too many to compare in passing."""
    files = [(split, file, finding.digest) for split, usable in survey.usable.items() for file, finding in usable]
    if len(files) > _MOST:
        return None
    facts, kept, _ = measure_files([str(file.path) for _, file, _ in files], progress)
    sets, across = [], []
    for rows in connected(find_pairs(facts, progress)):
        # One file of each content: equal files are counted as copies by the survey.
        distinct = list({files[kept[row]][2]: files[kept[row]] for row in reversed(rows)}.values())[::-1]
        if len(distinct) > 1:
            sets.append([file.path for _, file, _ in distinct])
            if len({split for split, _, _ in distinct}) > 1:
                across.append(sets[-1])
    return SurveyCopies(survey.layout.root, sets, across, survey.layout.flat)


def _sets(sets: list[list[Path]]) -> str:
    return f"{len(sets):,} set{'' if len(sets) == 1 else 's'} of pictures that show the same"
