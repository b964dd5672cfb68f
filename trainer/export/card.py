"""`model.json`: what somebody who gets the exported files has to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainer.export.subject import Subject


def card_of(
    subject: Subject,
    metadata: Mapping[str, str],
    files: Mapping[str, Mapping[str, Any]],
    *,
    embed: bool,
    run: str,
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """The card.

    Args:
        subject: What was exported.
        metadata: That the files carry.
        files: Size, hash, accuracy and speed of each file.
        embed: Whether the preprocessing is in the ONNX files.
        run: Name of the run.
        refused: Formats that did not pass their gate, each with the reason.
    """
    size = subject.size
    model_input: dict[str, Any] = {
        "name": "input",
        "type": "float32",
        "shape": ["batch", 3, size, size],
        "range": "normalised",
    }
    model_output: dict[str, Any] = {"name": "output", "meaning": "logits"}
    if embed:
        model_input = {"name": "pixels", "type": "uint8", "shape": ["batch", size, size, 3], "range": "0 to 255, RGB"}
        model_output = {"name": "probabilities", "meaning": "probabilities"}
    return {
        "model": "ResNet-18",
        "stem": subject.config.model.stem,
        "run": run,
        "step": subject.checkpoint.step,
        "weights": metadata["weights"],
        "checkpoint_sha256": metadata["checkpoint_sha256"],
        "classes": list(subject.dataset.classes),
        "trained_on": {name: len(split) for name, split in subject.dataset.splits.items()},
        "accuracy": {
            "split": metadata["accuracy_split"],
            "top1": float(metadata["accuracy"]),
            "correct": int(metadata["accuracy_correct"]),
            "images": int(metadata["accuracy_images"]),
        },
        "input": model_input,
        "output": model_output | {"shape": ["batch", len(subject.dataset.classes)]},
        "preprocess": subject.preprocess,
        "files": {name: dict(facts) for name, facts in files.items()},
        "refused": dict(refused),
        "versions": json.loads(metadata["versions"]),
    }
