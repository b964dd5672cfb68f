"""Opens every image once, to find unreadable files and copies. Torch-free.

Findings are cached by path, size and times, so that the next start does not open 50,000 files again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from PIL import Image

from trainer.config.reading_version import READING
from trainer.data.folder.layout import ImageFile
from trainer.data.folder.pixels import UnreadableImageError, is_deep, load, orientation, upright_rgb
from trainer.host.atomic_files import write_atomically
from trainer.host.limits import usable_cpus
from trainer.host.progress import Progress

_FORMAT = 2  # of the cached findings; other formats are ignored
_KEPT_VALUES = 10
_CHUNK = 256
_DRAFT_SIDE = 256
"""Smallest resolution needed from a JPEG: decoding finer would only cost time, since all its bytes are read anyway."""


class Finding(NamedTuple):
    """Result of examining one file."""

    digest: str  # hash of its bytes; equal for copies. Empty where the file could not be opened.
    width: int  # pixels, upright, like the height; both 0 where the file is no image
    height: int
    mode: str  # Pillow's name of its pixels, such as `RGB`, `L`, `RGBA`, `CMYK`
    problem: str  # reason why it cannot be used; empty when it can
    brightest: int = -1  # brightest value after conversion, 0 to 255, where the file has more than 8 bits; else -1


def scan(
    files: Sequence[ImageFile], *, kept_at: Path, what: str, progress: Progress, reading: int = READING
) -> list[Finding]:
    """Examine files, all below one folder, in their order; `what` names the images in the progress.

    `kept_at` is the file of the cached findings (`findings_path`); if it cannot be read or written, this only costs time.
    """
    known = _read(kept_at)
    found: dict[Path, Finding] = {}
    for file in files:
        kept = known.get(_key(file))
        if kept is not None and kept[:4] == _state(file, reading):
            found[file.path] = Finding(*kept[4:])
    missing = [file for file in files if file.path not in found]
    try:
        with ThreadPoolExecutor(usable_cpus()) as pool:
            for start in range(0, len(missing), _CHUNK):
                chunk = missing[start : start + _CHUNK]
                for file, finding in zip(chunk, pool.map(partial(_examine, reading=reading), chunk), strict=True):
                    found[file.path] = finding
                progress(f"checking {what}", min(start + _CHUNK, len(missing)) / len(missing))
    finally:  # also after an interrupted scan: the next one continues there
        new = {
            _key(file): [*_state(file, reading), *found[file.path]]
            for file in missing
            if file.path in found and found[file.path].digest
        }
        if new:
            _keep(kept_at, known | new)
    return [found[file.path] for file in files]


def findings_path(root: Path) -> Path:
    """Path of a folder's cached findings: in the user's cache folder, named after the folder's path."""
    caches = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(caches) if os.path.isabs(caches) else Path.home() / ".cache"
    except RuntimeError:  # a user without a name or home, as in a container
        base = Path(tempfile.gettempdir()) / f"r18-tui-{os.getuid()}"
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
    return base / "r18-tui" / f"{root.absolute().name[:40] or 'root'}-{name}.json"


def _key(file: ImageFile) -> str:
    return os.fsencode(file.path.absolute()).decode(errors="backslashreplace")


def _state(file: ImageFile, reading: int) -> list[int]:
    """Values that must be unchanged for a finding to hold. A copy may keep the mtime (`cp -p`, `rsync -t`), never the ctime."""
    return [reading, file.size, file.mtime_ns, file.ctime_ns]


def _examine(file: ImageFile, reading: int) -> Finding:
    try:
        data = file.path.read_bytes()
    except OSError as error:
        # Not a property of the file: it may be readable tomorrow, so this is not cached.
        return Finding("", 0, 0, "", error.strerror or str(error))
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    try:
        return load(data, lambda image: _look(image, digest, reading), reading)
    except MemoryError:
        return Finding("", 0, 0, "", "not enough memory to decode it")
    except UnreadableImageError as error:
        return Finding(digest, 0, 0, "", str(error).encode("utf-8", "backslashreplace").decode())


def _look(image: Image.Image, digest: str, reading: int) -> Finding:
    size, mode, deep = image.size, image.mode, is_deep(image)
    if reading == 1 and orientation(image, 1) >= 5:  # fails where version 1 failed
        size = size[::-1]
    image.draft("RGB", (_DRAFT_SIDE, _DRAFT_SIDE))
    drafted = image.size
    rgb = upright_rgb(image, reading)
    if reading > 1:
        if image.size != drafted:  # a TIFF that Pillow has turned
            size = image.size
        if orientation(image) >= 5:
            size = size[::-1]
    brightest = max(high for _, high in rgb.getextrema()) if deep else -1  # type: ignore[misc]
    return Finding(digest, *size, mode, "", brightest)


def _read(path: Path) -> dict[str, list[Any]]:
    """Cached findings; none when the file is missing, is not ours, or is damaged."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return {}
        content: Any = orjson.loads(path.read_bytes())
        if content["format"] != _FORMAT:
            return {}
        return {key: kept for key, kept in content["findings"].items() if len(kept) == _KEPT_VALUES}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return {}


def _keep(path: Path, findings: dict[str, list[Any]]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, orjson.dumps({"format": _FORMAT, "findings": findings}))
    except OSError:
        return  # the cache cannot be written: the images are opened again next time
