"""Survey of a folder of images and its problems: unreadable files, copies, leaks between splits. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

from trainer.data.folder.layout import ImageFile, Layout, find_layout
from trainer.data.folder.scan import Finding, findings_path, scan
from trainer.errors import DataError
from trainer.host.progress import Progress

_NAMED = 3  # most examples in a remark
_DARK = 64
"""Brightness, of 256: if no picture of more than 8 bits is brighter, the files use fewer bits than they could hold."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A folder of images whose files were opened: findings of each surveyed split, in the layout's order."""

    layout: Layout
    findings: dict[str, list[Finding]]

    @cached_property
    def usable(self) -> dict[str, list[tuple[ImageFile, Finding]]]:
        """Readable images of each split, in the layout's order."""
        return {
            split: [(file, finding) for file, finding in self._pairs(split) if not finding.problem]
            for split in self.findings
        }

    @cached_property
    def unreadable(self) -> list[tuple[Path, str]]:
        """Unusable files, each with the reason."""
        pairs = chain.from_iterable(map(self._pairs, self.findings))
        return [(file.path, finding.problem) for file, finding in pairs if finding.problem]

    def counts(self, split: str) -> list[int]:
        """Number of usable images of each class."""
        found = Counter(file.label for file, _ in self.usable.get(split, []))
        return [found[label] for label in range(len(self.layout.classes))]

    @cached_property
    def copies(self) -> int:
        """Number of training images that are identical, to the byte, to an earlier one of their class."""
        seen = Counter((file.label, finding.digest) for file, finding in self.usable["train"])
        return sum(count - 1 for count in seen.values())

    @cached_property
    def leaks(self) -> list[tuple[Path, Path]]:
        """Held-out images that are also in an earlier split (train, val, test), each with the first identical image."""
        first: dict[str, Path] = {}
        found = []
        for split in ("train", "val", "test"):
            pairs = self.usable.get(split, [])
            found += [(file.path, first[finding.digest]) for file, finding in pairs if finding.digest in first]
            for file, finding in pairs:
                first.setdefault(finding.digest, file.path)
        return [] if len(self.usable) < 2 else found

    @cached_property
    def contradictions(self) -> list[tuple[Path, Path]]:
        """Training images that lie in two classes: each with the first identical image, which has another label."""
        first: dict[str, ImageFile] = {}
        found = []
        for file, finding in self.usable["train"]:
            earlier = first.setdefault(finding.digest, file)
            if earlier.label != file.label:
                found.append((file.path, earlier.path))
        return found

    def remarks(self) -> list[str]:
        """Reasons to doubt the figures of a run, for people."""
        remarks = []
        if self.leaks:
            remarks.append(
                f"{_images(len(self.leaks))} held out for evaluation {_are(len(self.leaks))} in another split too, which "
                f"inflates the accuracy: {self._examples(self.leaks)}"
            )
        if self.contradictions:
            remarks.append(
                f"{_images(len(self.contradictions))} {_are(len(self.contradictions))} in two classes: "
                f"{self._examples(self.contradictions)}"
            )
        return remarks

    @cached_property
    def notes(self) -> list[str]:
        """Skipped files, classes that are not evaluated, and doubts about brightness, for people."""
        return [*self.layout.notes, *self._unreadable_classes(), *self._dark()]

    def require_images_per_class(self, least: int) -> None:
        """Raise DataError for the first class with fewer than `least` readable training images."""
        for label, (name, count) in enumerate(zip(self.layout.classes, self.counts("train"), strict=True)):
            if count < least:
                lost = (pair for pair in self._pairs("train") if pair[0].label == label and pair[1].problem)
                problem = next((f"; {file.path}: {finding.problem}" for file, finding in lost), "")
                raise DataError(
                    f"{self.layout.folders['train'] / name}: {_images(count)} that can be read; a class needs at least "
                    f"{'one' if least == 1 else 'two'} to be learned{problem}"
                )

    def _unreadable_classes(self) -> list[str]:
        """Classes of a held-out split whose images are all unreadable."""
        remarks = []
        for split in self.usable:
            there = Counter(file.label for file in self.layout.files[split])
            lost = [self.layout.classes[label] for label in sorted(there) if not self.counts(split)[label]]
            if lost:
                remarks.append(
                    f"{split}: no image of {', '.join(lost)} can be read, so these classes are not evaluated"
                )
        return remarks

    def _dark(self) -> list[str]:
        """Note on pictures of more than 8 bits that are nearly black on the scale of their files."""
        values = [finding.brightest for _, finding in chain(*self.usable.values()) if finding.brightest >= 0]
        if not values or max(values) >= _DARK or self.layout.reading == 1:
            return []
        return [
            f"{_images(len(values))} with more than 8 bits per value {_are(len(values))} nearly black: white is the largest "
            f"value that the file format can hold, and the brightest pixel is {max(values)} of 255 on that scale. If the files "
            f"use fewer bits (12 of 16), scale their values, or set MaxSampleValue in TIFFs"
        ]

    def _pairs(self, split: str) -> Iterable[tuple[ImageFile, Finding]]:
        return zip(self.layout.files[split], self.findings[split], strict=True)

    def _examples(self, pairs: list[tuple[Path, Path]]) -> str:
        root = self.layout.root
        shown = [f"{one.relative_to(root)} = {other.relative_to(root)}" for one, other in pairs[:_NAMED]]
        return ", ".join(shown) + (", ..." if len(pairs) > _NAMED else "")


def take_survey(layout: Layout, splits: Iterable[str], progress: Progress) -> Survey:
    """Open the files of some splits."""
    look = partial(scan, kept_at=findings_path(layout.root), progress=progress, reading=layout.reading)
    findings = {split: look(layout.files[split], what=f"{split} images") for split in splits}
    return Survey(layout=layout, findings=findings)


def survey_folder(root: Path, progress: Progress) -> Survey:
    """Find the layout of a folder and open all its images; DataError when the layout is not supported."""
    layout = find_layout(root)
    return take_survey(layout, layout.files, progress)


def _images(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
