"""Writes the fp32 ONNX file, and compares it with the model.

Exporters have silently produced wrong ResNets before (pytorch/pytorch#169178), so the comparison is mandatory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import trainer
from trainer.data.augment.augment import Normalize
from trainer.errors import ExportError
from trainer.export.export_source import ExportSource
from trainer.host.atomic_files import sync

TOLERANCE = 1e-3  # largest accepted difference of any logit (or probability), in fp32
NUM_IMAGES = 256  # real images on which top-1 must agree without exception
BATCH_SIZES = (1, 2, 7)  # on which the dynamic batch dimension is checked


class Embedded(nn.Module):
    """A model between its normalisation and its softmax: uint8 (N, S, S, 3) to probabilities (N, K)."""

    def __init__(self, model: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        """Probability of each class."""
        probabilities: Tensor = self.model(self.normalize(pixels_NHWC).permute(0, 3, 1, 2)).softmax(1)
        return probabilities


def module_to_write(source: ExportSource) -> nn.Module:
    """The module to export: the model, or with `embed` the model between its normalisation and its softmax."""
    return Embedded(source.model, source.normalize) if source.embed else source.model


def example(source: ExportSource, pixels_NHWC: Tensor) -> Tensor:
    """Images in the form that `module_to_write` takes."""
    return pixels_NHWC if source.embed else source.normalized(pixels_NHWC)


def write_model(source: ExportSource, target: Path, metadata: Mapping[str, str], *, optimize: bool) -> None:
    """Write the ONNX file; ExportError when the exporter fails."""
    opset = source.config.export.opset
    # Two images: some exporters take a batch of one for a constant.
    images = example(source, torch.zeros(2, source.size, source.size, 3, dtype=torch.uint8))
    program = torch.onnx.export(
        module_to_write(source).eval(),
        (images,),
        input_names=["pixels" if source.embed else "input"],
        output_names=["probabilities" if source.embed else "output"],
        dynamic_shapes=({0: "batch"},),
        opset_version=None if opset == "auto" else opset,
        external_data=False,
        dynamo=True,
        optimize=optimize,
        verbose=False,
    )
    if program is None:
        raise ExportError("PyTorch's ONNX exporter returned nothing")
    save_proto(program.model_proto, target, metadata)


def save_proto(proto: Any, target: Path, metadata: Mapping[str, str]) -> None:
    """Check a graph and write it with its metadata, in the oldest file format that its operator sets need."""
    import onnx

    # Quantisation imports operator sets that no node uses, and newer ones than those of the graph.
    used = {"", "ai.onnx", *(node.domain for node in proto.graph.node)}
    needed = [entry for entry in proto.opset_import if entry.domain in used or proto.functions]
    del proto.opset_import[:]
    proto.opset_import.extend(needed)
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    target.parent.mkdir(exist_ok=True)
    onnx.save(proto, str(target))
    with target.open("rb+") as file:
        sync(file.fileno())
    found = {prop.key: prop.value for prop in onnx.load(str(target)).metadata_props}
    if found != metadata:  # tools that rewrite graphs drop them
        raise ExportError(f"{target}: the metadata was lost in writing")


def metadata_of(source: ExportSource, measured: Mapping[str, Any]) -> dict[str, str]:
    """The metadata that describe a file."""
    import onnx
    import onnxruntime
    import onnxscript

    return {
        "classes": json.dumps(list(source.dataset.classes), ensure_ascii=False),
        "preprocess": json.dumps(source.preprocess),
        "stem": source.config.model.stem,
        "accuracy": f"{measured['accuracy']:.6f}",
        "accuracy_split": measured["split"],
        "accuracy_correct": str(measured["correct"]),
        "accuracy_images": str(measured["split_images"]),
        "step": str(source.checkpoint.step),
        "weights": source.checkpoint.weights_kind,
        "checkpoint_sha256": source.checkpoint.digest(),
        "versions": json.dumps(
            {
                "r18-tui": trainer.__version__,
                "torch": torch.__version__,
                "onnx": onnx.__version__,
                "onnxscript": onnxscript.__version__,
                "onnxruntime": onnxruntime.__version__,
            }
        ),
    }


def compare(source: ExportSource, path: Path) -> dict[str, Any]:
    """Compare the outputs of torch and onnxruntime on real images, in batches of several sizes."""
    session = open_session(path)
    module = module_to_write(source).eval()
    pixels_NHWC, held_out = source.real_pixels(NUM_IMAGES)
    images = example(source, pixels_NHWC)
    differences = []
    for count in BATCH_SIZES:
        ours, theirs = _both(module, session, images[:count])
        differences.append(np.abs(ours - theirs).max())
    agreeing = 0
    for chunk in images.split(64):
        ours, theirs = _both(module, session, chunk)
        differences.append(np.abs(ours - theirs).max())
        agreeing += int((ours.argmax(1) == theirs.argmax(1)).sum())
    return {
        # numpy's maximum keeps a NaN; Python's would lose it.
        "max_abs_diff": float(np.max(differences)),
        "tolerance": TOLERANCE,
        "images": len(images),
        "held_out_images": held_out,
        "train_images": len(images) - held_out,
        "top1_agreeing": agreeing,
        "batches": list(BATCH_SIZES),
        **_format(path),
    }


def verdict(parity: Mapping[str, Any]) -> str:
    """Reason to refuse the file; empty when it passes. The comparison is written so that NaN is refused too."""
    if not parity["max_abs_diff"] <= TOLERANCE:
        return f"a logit differs by {parity['max_abs_diff']:.2e}, more than {TOLERANCE:g}"
    if parity["top1_agreeing"] != parity["images"]:
        return f"top-1 agrees on only {parity['top1_agreeing']} of {parity['images']} images"
    return ""


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _format(path: Path) -> dict[str, int]:
    """Operator set and version of the file format."""
    import onnx

    model = onnx.load(str(path))
    opsets = [int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return {"opset": max(opsets), "ir_version": int(model.ir_version)}


def _both(module: nn.Module, session: Any, batch: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with torch.no_grad():
        ours: NDArray[np.float32] = module(batch).numpy()
    theirs: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
    if ours.shape != theirs.shape:
        raise ExportError(
            f"the exported model returns {theirs.shape} for a batch of {len(batch)}, expected {ours.shape}"
        )
    return ours, theirs
