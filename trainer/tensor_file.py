"""Reads safetensors files without mapping them into memory.

Some network disks and FUSE refuse to map a file, and a mapped file that is cut short kills the process (SIGBUS). Torch-free
but for `read_tensors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from torch import Tensor

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000
"""Bytes; safetensors' own limit."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file.

    Raises:
        OSError: When it cannot be read.
        SafetensorError: When it is not a whole safetensors file.
    """
    from safetensors.torch import load

    data = path.read_bytes()
    tensors = load(data)
    header = orjson.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")])
    return tensors, header.get("__metadata__", {})


def read_header(path: Path) -> dict[str, Any]:
    """The header of a file: type and shape of each tensor by name, and the strings of `__metadata__`.

    Source: safetensors, README, section Format.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is not a safetensors file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > _LONGEST_HEADER:
            raise ValueError("not a safetensors file")
        header = orjson.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("not a safetensors file")
    return header
