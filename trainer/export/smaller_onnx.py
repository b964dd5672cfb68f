"""Makes smaller ONNX files from the checked fp32 one; each has its own gate over the whole held-out split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data.batches.batches import evaluation_batches
from trainer.data.batches.lost_images import LostImages
from trainer.errors import ExportError
from trainer.evaluation.classifier import OnnxClassifier
from trainer.export.export_source import ExportSource
from trainer.export.onnx_file import example, save_proto

INT8_DROP = 0.01  # largest loss of accuracy of static int8
FP16_DROP, FP16_AGREEMENT = 0.001, 0.995  # largest loss of accuracy, and smallest share of images with fp32's top-1
_CALIBRATION_IMAGES = 256
_BATCH = 32


def write_int8(source: ExportSource, fp32: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Write a static int8 file: QDQ, weights signed and per channel, activations unsigned, ranges from training images.

    Where the CPU has no VNNI, weights use 7 bits: sums of two products saturate otherwise (onnxruntime's documentation of
    quantization, "reduce_range").
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared")
    try:
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        images = example(source, source.train_pixels(_CALIBRATION_IMAGES)).numpy()
        name = "pixels" if source.embed else "input"
        quantization.quantize_static(
            str(prepared),
            str(target),
            _CalibrationReader(name, images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "Add", "MaxPool", "Relu"],
            per_channel=True,
            reduce_range=not has_vnni(),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        prepared.unlink(missing_ok=True)
    save_proto(onnx.load(str(target)), target, metadata)


def write_fp16(fp32: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Write a file that computes in half precision, for GPU runtimes; inputs and outputs do not change."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    halved = OnnxModel(convert_float_to_float16(onnx.load(str(fp32)), keep_io_types=True))
    halved.topological_sort()  # the converter puts the casts of inputs last, which is not valid
    save_proto(halved.model, target, metadata)


def check_int8(source: ExportSource, fp32: Path, path: Path, poll: Callable[[float], None]) -> dict[str, float]:
    """Compare an int8 file with the fp32 one; returns facts about it, ExportError when it is refused."""
    facts, before = _compare_with_fp32(source, fp32, path, poll)
    _refuse_drop(before, facts["accuracy"], INT8_DROP)
    return facts


def check_fp16(source: ExportSource, fp32: Path, path: Path, poll: Callable[[float], None]) -> dict[str, float]:
    """Compare an fp16 file with the fp32 one; returns facts about it, ExportError when it is refused."""
    facts, before = _compare_with_fp32(source, fp32, path, poll)
    if not facts["agreement"] >= FP16_AGREEMENT:
        raise ExportError(
            f"it agrees with fp32 on {facts['agreement']:.2%} of the images, less than {FP16_AGREEMENT:.1%}"
        )
    _refuse_drop(before, facts["accuracy"], FP16_DROP)
    return facts


def _refuse_drop(before: float, accuracy: float, most: float) -> None:
    if not round(before - accuracy, 9) <= most:  # rounded, since 0.13 - 0.12 is more than 0.01
        raise ExportError(f"accuracy falls from {before:.2%} to {accuracy:.2%}, by more than {100 * most:g}%")


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU adds products of bytes without saturating; False where that is unknown."""
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags or "asimddp" in flags


def _compare_with_fp32(
    source: ExportSource, fp32: Path, path: Path, poll: Callable[[float], None]
) -> tuple[dict[str, float], float]:
    """Facts about a smaller file on the held-out split, with its `agreement` with fp32's top-1, and fp32's accuracy."""
    first, second = OnnxClassifier(fp32), OnnxClassifier(path)
    right = before = agreeing = total = 0
    for pixels_NHWC, labels_N in _batches(source):
        poll(total / len(source.held_out))
        theirs, ours = first.probabilities(pixels_NHWC), second.probabilities(pixels_NHWC)
        if not np.isfinite(ours).all():
            raise ExportError("its outputs contain NaN or infinity")
        right += int((ours.argmax(1) == labels_N).sum())
        before += int((theirs.argmax(1) == labels_N).sum())
        agreeing += int((ours.argmax(1) == theirs.argmax(1)).sum())
        total += len(labels_N)
    facts = {"accuracy": right / total, "correct": right, "agreement": agreeing / total, "images": total}
    return facts, before / total


def _batches(source: ExportSource) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    lost = LostImages(lambda _: None)  # already reported when fp32 was evaluated
    for pixels_NHWC, labels_N, _ in evaluation_batches(source.held_out, _BATCH, torch.device("cpu"), lost):
        if len(labels_N):
            yield pixels_NHWC.numpy(), labels_N.numpy()


class _CalibrationReader:
    """Supplies training images in batches; onnxruntime accepts any class with `get_next` as a `CalibrationDataReader`."""

    def __init__(self, name: str, images: NDArray[Any]) -> None:
        self._batches = ({name: batch} for batch in np.array_split(images, max(len(images) // 8, 1)))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch by the name of the input; None after the last."""
        return next(self._batches, None)
