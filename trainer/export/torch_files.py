"""Writes the model for programs that have PyTorch: `.pt2` (graph and weights) and safetensors (weights)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from trainer.errors import ExportError
from trainer.export.export_source import ExportSource
from trainer.export.onnx_file import BATCH_SIZES, NUM_IMAGES, TOLERANCE, example, module_to_write
from trainer.model.checkpoint import read_tensors


def write_pt2(source: ExportSource, target: Path, metadata: Mapping[str, str]) -> None:
    """Write a `torch.export` program with a dynamic batch dimension; the metadata are extra files in it."""
    images = example(source, torch.zeros(2, source.size, source.size, 3, dtype=torch.uint8))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module_to_write(source).eval(), (images,), dynamic_shapes=({0: batch},), strict=False)
    # A string: `save` checks its suffix.
    torch.export.save(program, str(target), extra_files=dict(metadata))


def check_pt2(source: ExportSource, path: Path) -> None:
    """Raise ExportError when the outputs of a written program differ from the model's."""
    module = torch.export.load(str(path)).module()
    original = module_to_write(source).eval()
    pixels_NHWC, _ = source.real_pixels(NUM_IMAGES)
    images = example(source, pixels_NHWC)
    chunks = [*(images[:count] for count in BATCH_SIZES), *images.split(64)]
    with torch.no_grad():
        # A maximum over tensors: Python's would lose a NaN.
        worst = float(torch.stack([(module(chunk) - original(chunk)).abs().max() for chunk in chunks]).max())
    if not worst <= TOLERANCE:
        raise ExportError(f"an output differs by {worst:.2e}, more than {TOLERANCE:g}")


def write_safetensors(source: ExportSource, target: Path, metadata: Mapping[str, str]) -> None:
    """Write the weights by torchvision's names, with the metadata as strings."""
    tensors = {name: tensor.contiguous() for name, tensor in source.model.state_dict().items()}
    save_file(tensors, target, metadata=dict(metadata))


def check_safetensors(source: ExportSource, path: Path) -> None:
    """Raise ExportError when written weights differ from the model's in a single bit."""
    found, wanted = read_tensors(path)[0], source.model.state_dict()
    if found.keys() != wanted.keys() or not all(torch.equal(found[name], wanted[name]) for name in wanted):
        raise ExportError("its tensors differ from those written")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
