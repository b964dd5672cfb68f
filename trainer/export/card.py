"""Writes `model.json`, the description that goes with the exported files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.export.export_source import ExportSource
from trainer.export.torch_files import sha256_of

_OF_ALL_FILES = ("step", "weights", "checkpoint_sha256", "accuracy", "input", "output", "onnx")
"""Keys of a card that apply to every file of one export."""


def card_of(
    source: ExportSource,
    metadata: Mapping[str, str],
    files: Mapping[str, Mapping[str, Any]],
    *,
    run: str,
    refused: Mapping[str, str],
    parity: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `model.json`.

    `files` maps names to size, hash, accuracy and speed, `refused` formats that failed their gate to the reason; `parity`
    is the result of the ONNX comparison, with `opset` and `ir_version`.
    """
    size = source.size
    model_input: dict[str, Any]
    if source.embed:
        model_input = {"name": "pixels", "type": "uint8", "shape": ["batch", size, size, 3], "range": "0 to 255, RGB"}
        model_output = {"name": "probabilities", "meaning": "probabilities"}
    else:
        model_input = {"name": "input", "type": "float32", "shape": ["batch", 3, size, size], "range": "normalised"}
        model_output = {"name": "output", "meaning": "logits"}
    return {
        "model": "ResNet-18",
        "stem": source.config.model.stem,
        "run": run,
        "step": source.checkpoint.step,
        "weights": metadata["weights"],
        "checkpoint_sha256": metadata["checkpoint_sha256"],
        "classes": list(source.dataset.classes),
        "trained_on": {name: len(split) for name, split in source.dataset.splits.items()},
        "accuracy": {
            "split": metadata["accuracy_split"],
            "top1": float(metadata["accuracy"]),
            "correct": int(metadata["accuracy_correct"]),
            "images": int(metadata["accuracy_images"]),
        },
        "input": model_input,
        "output": model_output | {"shape": ["batch", len(source.dataset.classes)]},
        "preprocess": source.preprocess,
        "files": {name: dict(facts) for name, facts in files.items()},
        "onnx": {"opset": parity["opset"], "ir_version": parity["ir_version"]},
        "refused": dict(refused),
        "versions": json.loads(metadata["versions"]),
    }


def earlier_files(folder: Path, written: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Files of earlier exports in a folder, without those in `written`, each with its description in their card."""
    before = _card_before(folder)
    export = {"export": {key: before[key] for key in _OF_ALL_FILES if key in before}}
    known = {name: export | facts for name, facts in _described(before, "files").items()}
    known |= _described(before, "files_of_earlier_exports")
    found = {}
    for path in sorted(folder.glob("model*")):
        if path.name not in written and path.suffix != ".json" and path.is_file():
            itself = {"size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
            facts = known.get(path.name, {})
            found[path.name] = facts if facts.get("sha256") == itself["sha256"] else itself
    return found


def _described(card: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """Descriptions of files in a card; older cards have a list of names here, and others may have anything."""
    files = card.get(key)
    return {name: facts for name, facts in files.items() if isinstance(facts, dict)} if isinstance(files, dict) else {}


def _card_before(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / "model.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}
