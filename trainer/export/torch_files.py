"""Writes the model for programs that have PyTorch: `.pt2` (graph and weights) and safetensors (weights)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from trainer.export.onnx_file import BATCH_SIZES, NUM_IMAGES, TOLERANCE, example, exported_module
from trainer.export.subject import Subject
from trainer.model.checkpoint import read_tensors


def write_pt2(subject: Subject, target: Path, metadata: Mapping[str, str], *, embed: bool) -> None:
    """Write a `torch.export` program with a dynamic batch dimension; the metadata are extra files in it."""
    images = example(subject, torch.zeros(2, subject.size, subject.size, 3, dtype=torch.uint8), embed=embed)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        exported_module(subject, embed=embed).eval(), (images,), dynamic_shapes=({0: batch},), strict=False
    )
    # A string: `save` checks its suffix.
    torch.export.save(program, str(target), extra_files=dict(metadata))


def problem_of_pt2(subject: Subject, path: Path, *, embed: bool) -> str:
    """Reason to refuse a written program; empty when its outputs match the model's."""
    module = torch.export.load(str(path)).module()
    original = exported_module(subject, embed=embed).eval()
    pixels_NHWC, _ = subject.real_pixels(NUM_IMAGES)
    images = example(subject, pixels_NHWC, embed=embed)
    chunks = [*(images[:count] for count in BATCH_SIZES), *images.split(64)]
    with torch.no_grad():
        # A maximum over tensors: Python's would lose a NaN.
        worst = float(torch.stack([(module(chunk) - original(chunk)).abs().max() for chunk in chunks]).max())
    return "" if worst <= TOLERANCE else f"an output differs by {worst:.2e}, more than {TOLERANCE:g}"


def write_safetensors(subject: Subject, target: Path, metadata: Mapping[str, str]) -> None:
    """Write the weights by torchvision's names, with the metadata as strings."""
    tensors = {name: tensor.contiguous() for name, tensor in subject.model.state_dict().items()}
    save_file(tensors, target, metadata=dict(metadata))


def problem_of_safetensors(subject: Subject, path: Path) -> str:
    """Reason to refuse written weights; empty when they equal the model's, to the bit."""
    found, wanted = read_tensors(path)[0], subject.model.state_dict()
    same = found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    return "" if same else "its tensors differ from those written"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
