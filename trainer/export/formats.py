"""Formats of an export and the names of their files. Torch-free."""

from __future__ import annotations

FORMATS = {
    "onnx": "model.onnx", "int8": "model-int8.onnx", "fp16": "model-fp16.onnx", "pt2": "model.pt2",
    "safetensors": "model.safetensors",
}  # fmt: skip
"""Files by format; `onnx` is always written, and the smaller ones are made from it."""
