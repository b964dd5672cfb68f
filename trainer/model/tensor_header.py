"""Reads the header of safetensors files without mapping them into memory, which some network disks refuse. Torch-free.

Source: safetensors, README, section Format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import orjson

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # bytes, as in safetensors itself


def read_header(path: Path) -> dict[str, Any]:
    """Type and shape of each tensor by name, and the strings of `__metadata__`; OSError, or ValueError as in `header_in`."""
    with path.open("rb") as file:
        return header_in(file)


def header_in(file: BinaryIO) -> dict[str, Any]:
    """The header at the beginning of an open file; ValueError when it is not a safetensors file."""
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    header = orjson.loads(file.read(length)) if length <= _LONGEST_HEADER else None
    if not isinstance(header, dict):
        raise ValueError("not a safetensors file")
    return header
