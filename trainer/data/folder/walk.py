"""Finds the image files below a folder, and notes what is skipped. Torch-free.

One walk serves `init`, training, `eval` and `predict`. Increase `READING` with any change to which files or classes are found.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trainer.config.reading_version import READING
from trainer.errors import DataError

_ENDINGS_1 = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif"})
EXTENSIONS = _ENDINGS_1 | {".jfif", ".jpe", ".jif", ".pjpeg", ".pjp", ".apng", ".dib", ".pbm", ".pnm"}

_SYSTEM = frozenset(
    {
        "@eadir", "@tmp", "#recycle", "#snapshot", "~snapshot", "@recycle", "@recently-snapshot", "@sharebin", "@synoresource",
        "@synoeastream", "@sharesnap", "@__thumb",
        "$recycle.bin", "RECYCLER", "system volume information", "found.000", "__macosx", "lost+found",
        "thevolumesettingsfolder", "network trash folder", "temporary items", "__pycache__",
    }
)  # fmt: skip
"""Folders of a NAS or a system; in lower case where case does not matter. Hidden folders are handled separately."""

_TRACKERS = frozenset({"wandb", "mlruns", "mlartifacts", "lightning_logs", "tensorboard", "trackio"})
"""Folders of trackers, unless pictures lie directly in them: then the name is that of a class."""

_OUTPUT_PAIRS = (
    {"config.yaml", "checkpoints"}, {"config.yaml", "trainer.json"}, {"config.yaml", "results.csv"}, {"checkpoints", "log.txt"},
    {"report.json", "confusion.csv"}, {"per_class.csv", "confusion.csv"}, {"comparison.json", "disagreements.csv"},
    {"model.json", "parity.json"}, {"model.json", "model.onnx"}, {"meta.yaml", "artifacts"},
)  # fmt: skip
"""Pairs of names found together in runs, evaluations, exports and MLflow's runs, without pictures beside them."""

_PICTURE_SHEET_NAME = re.compile(r"(training|mistakes-.*)\.png")
_SHEET_MARK = b"r18-tui\0"
"""Start of the text that `trainer.evaluation.picture_sheet` writes into its files."""

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
_EXAMPLES = 3
_OUTPUT = "skipped output of runs, exports and trackers"
_OTHER_ENDINGS = "skipped files with other endings"


class Notes:
    """Skipped or unusual files in a folder, with examples."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._paths: dict[str, set[str]] = {}
        self._texts: list[str] = []

    def add(self, kind: str, path: str | Path) -> None:
        """Note a file or folder of a kind, such as `broken links`."""
        self._paths.setdefault(kind, set()).add(os.fspath(path))

    def say(self, text: str) -> None:
        """Add a note as free text."""
        self._texts.append(text)

    @property
    def endings(self) -> Counter[str]:
        """Endings of the files that are not read, with their counts."""
        paths = sorted(self._paths.get(_OTHER_ENDINGS, ()))
        return Counter(os.path.splitext(path)[1].lower() or "no ending" for path in paths)

    @property
    def has_output(self) -> bool:
        """Whether output of runs, exports or trackers was skipped."""
        return _OUTPUT in self._paths

    def lines(self) -> list[str]:
        """Format the notes for people, one line per kind."""
        lines = list(self._texts)
        for kind, paths in sorted(self._paths.items()):
            what = f"{kind}: {len(paths):,}"
            if kind == _OTHER_ENDINGS:
                what = f"{kind}: " + ", ".join(f"{count:,} {ending}" for ending, count in self.endings.most_common(5))
            shown = [os.path.relpath(path, self._root) for path in sorted(paths)[:_EXAMPLES]]
            lines.append(f"{what} ({', '.join(shown)}{', ...' if len(paths) > _EXAMPLES else ''})")
        return lines


def normal_form(name: str, reading: int = READING) -> str:
    """Normalise a file's name to Unicode form C: macOS writes the same name differently from other systems."""
    return name if reading == 1 else unicodedata.normalize("NFC", name)


def is_image(name: str, reading: int = READING) -> bool:
    """Whether a file's name has an image's ending."""
    return os.path.splitext(name)[1].lower() in (_ENDINGS_1 if reading == 1 else EXTENSIONS)


def subfolders(folder: Path, notes: Notes, reading: int = READING) -> list[Path]:
    """Subfolders that may hold images, sorted by name; DataError when the folder cannot be read."""
    return sorted(Path(entry.path) for entry in _listed(folder) if _is_dir(entry) and _wanted(entry, notes, reading))


def loose_images(folder: Path, reading: int = READING) -> list[str]:
    """Images that lie directly in a folder."""
    return [entry.path for entry in _listed(folder) if _is_image_file(entry, reading)]


def image_entries(folder: Path, notes: Notes, reading: int = READING) -> Iterator[os.DirEntry[str]]:
    """Yield all image files below a folder, in no particular order; nothing if it does not exist.

    Links to folders are followed, each folder once; reading 1 follows none and skips only hidden names. DataError when a
    folder cannot be read.
    """
    if not folder.exists():
        return
    seen: set[tuple[int, int]] = set()
    pending, links = [folder], list[Path]()
    while pending or links:
        # Links come last: a folder that also has a real path here is then found under that path.
        linked = not pending
        place = links.pop(0) if linked else pending.pop()
        try:
            found = os.stat(place)
        except FileNotFoundError:
            continue  # deleted a moment ago
        except OSError as error:
            raise DataError(f"{place}: cannot be read: {error.strerror}") from error
        if reading > 1 and (found.st_dev, found.st_ino) in seen:
            notes.add("skipped folders already read under another name", place)
            continue
        seen.add((found.st_dev, found.st_ino))
        if linked:
            notes.add("followed links to folders", place)
        for entry in _listed(place):
            if not _is_dir(entry):
                if _is_image_file(entry, reading):
                    yield entry
                else:
                    _note_file(entry, notes, reading)
            elif reading == 1 and entry.is_symlink():
                notes.add("skipped links to folders", entry.path)
            elif _wanted(entry, notes, reading):
                (links if entry.is_symlink() else pending).append(Path(entry.path))


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _wanted(entry: os.DirEntry[str], notes: Notes, reading: int) -> bool:
    """Whether a folder may hold the user's images; notes the reason if not."""
    if entry.name.startswith("."):
        notes.add("skipped hidden folders", entry.path)
    elif reading == 1:
        return True
    elif {entry.name, entry.name.casefold()} & _SYSTEM:
        notes.add("skipped system and NAS folders", entry.path)
    elif is_output(entry.path):
        notes.add(_OUTPUT, entry.path)
    elif entry.is_symlink() and _points_to_parent(entry):
        notes.add("skipped links back to a parent folder", entry.path)
    else:
        return True
    return False


def is_only_output(folder: Path) -> bool:
    """Whether a folder holds output of this program or of trackers, at any depth, and no other images."""
    notes = Notes(folder)
    return not any(image_entries(folder, notes)) and notes.has_output


def is_output(folder: str | Path) -> bool:
    """Whether a folder was written by this program or by a tracker."""
    try:
        names = set(os.listdir(folder))
    except OSError:
        return False  # the reader of the folder reports it
    if "events.jsonl" in names:
        return True
    return not any(is_image(name) for name in names) and (
        os.path.basename(folder).casefold() in _TRACKERS
        or any(pair <= names for pair in _OUTPUT_PAIRS)
        or any(name.startswith("events.out.tfevents.") for name in names)
    )


def _is_dir(entry: os.DirEntry[str]) -> bool:
    # Circular links make DirEntry.is_dir raise; os.path.isdir returns False for them.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_image_file(entry: os.DirEntry[str], reading: int) -> bool:
    if entry.name.startswith(".") or not is_image(entry.name, reading) or not os.path.isfile(entry.path):
        return False
    return reading == 1 or not _is_sheet(entry)


def _is_sheet(entry: os.DirEntry[str]) -> bool:
    """Whether a file is a picture sheet written by a run."""
    if not _PICTURE_SHEET_NAME.fullmatch(entry.name):
        return False
    try:
        with open(entry.path, "rb") as file:
            return _SHEET_MARK in file.read(64)
    except OSError:
        return False


def _note_file(entry: os.DirEntry[str], notes: Notes, reading: int) -> None:
    if not os.path.exists(entry.path):
        notes.add("skipped broken links", entry.path)
    elif not is_image(entry.name, reading):
        if not entry.name.startswith(".") and entry.name.casefold() not in _SYSTEM_FILES:
            notes.add(_OTHER_ENDINGS, entry.path)
    elif entry.name.startswith("."):
        notes.add("skipped hidden images", entry.path)
    elif os.path.isfile(entry.path):
        notes.add(_OUTPUT, entry.path)


def _points_to_parent(entry: os.DirEntry[str]) -> bool:
    """Whether a link leads to a folder that contains it, by its real path or by the path it was reached through."""
    target = os.path.realpath(entry.path)
    above = (os.path.realpath(os.path.dirname(entry.path)), os.path.abspath(os.path.dirname(entry.path)))
    return any(os.path.commonpath([target, place]) == target for place in above)
