"""Recognises files that were given as a model or as weights but are something else. Torch-free."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

from trainer.host.file_kinds import looks_like

_START = 1024  # leading bytes that are examined


def kind_of_file(path: Path, expected: str = "") -> str:
    """The kind of a file as the end of a sentence, such as `: it is an HTML page`.

    Empty where it is unknown, or where its suffix is `expected`. OSError when the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_START)
    if not start:
        return ": the file is empty"
    if start.startswith(b"PK"):
        return _kind_of_archive(path)
    kind = _kind_of_model(start)
    if kind is None:
        return "" if start.startswith(b"\x80") else f": it looks like {looks_like(start)}"  # \x80 begins a pickle
    name, suffix = kind
    return "" if suffix == expected else f": it is {name}"


def _kind_of_model(start: bytes) -> tuple[str, str] | None:
    """A noun for such a file, and its suffix."""
    if start[0] == 0x08 and start[2:3] in (b"\x12", b"\x3a", b"\x42"):  # the first two fields of ONNX's ModelProto
        return "an ONNX file, from which weights cannot be read", ".onnx"
    if start[5:8] == b"\0\0\0" and start[8:9] == b"{":  # the length of the header, then the header
        return "a safetensors file, whose name must end in .safetensors", ".safetensors"
    return None


def _kind_of_archive(path: Path) -> str:
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("archive_format") for name in names):
            return ": it is an exported PyTorch program (.pt2), which r18-tui cannot read"
        return "" if any(name.endswith("data.pkl") for name in names) else ": it is a ZIP archive of another program"
    return ": it is a truncated PyTorch file or ZIP archive"
