"""Exports a checkpoint of a run: writes every file under a temporary name, checks it, and moves it into place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trainer.errors import ExportError
from trainer.evaluation.run_settings import settings_now
from trainer.export.card import card_of, earlier_files
from trainer.export.export_source import ExportSource
from trainer.export.formats import FORMATS
from trainer.export.onnx_file import NUM_IMAGES, compare, metadata_of, verdict, write_model
from trainer.export.smaller_onnx import check_fp16, check_int8, write_fp16, write_int8
from trainer.export.speed import speed_of
from trainer.export.torch_files import check_pt2, check_safetensors, sha256_of, write_pt2, write_safetensors
from trainer.host.atomic_files import replace_file, set_mode, sync_folder, umask_mode, write_atomically
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.versions import torch_release
from trainer.run.folder.run_config import with_root
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.reader import read_records
from trainer.run.log.result_events import Evaluated, Exported, ExportProgress
from trainer.run.log.run_events import Warned
from trainer.session.error_report import explain, log_traceback

_MIN_TORCH = (2, 9)

Publish = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export; None means as in the run's configuration."""

    which: str = "default"  # best, latest, default or a step
    data_root: Path | None = None  # the image folder, when it has moved
    formats: tuple[str, ...] | None = None  # in addition to onnx
    embed: bool | None = None  # whether the file includes the preprocessing


def export_run(run_dir: RunDir, options: ExportOptions, publish: Publish) -> tuple[Exported, dict[str, str]]:
    """Export a checkpoint of a run and verify the files against the model.

    Returns the event that announces the files, and the reason for each refused format. R18Error when the checkpoint,
    the data or the ONNX file is not valid.
    """
    _require_torch()
    publish = _never_decreasing(publish)
    publish(ExportProgress(stage="reading the checkpoint", fraction=0.05))
    path = CheckpointFolder(run_dir, keep=2).choose(options.which)
    checkpoint = read_checkpoint(path)
    config = settings_now(run_dir, checkpoint.run.config)
    source = ExportSource.of(
        checkpoint, config if options.data_root is None else with_root(config, options.data_root),
        lambda stage, share: publish(ExportProgress(stage=stage, fraction=round(0.05 + 0.15 * (share or 0.0), 3))),
        tested=_has_read_test(run_dir),
        embed=config.export.embed_preprocess if options.embed is None else options.embed,
    )  # fmt: skip
    if not source.same_data:
        text = "the images have changed since the run was trained; the accuracy is that of the current images"
        publish(Warned(message=text))
    return _Export(run_dir, source, options.formats, publish).run(path.name)


def _never_decreasing(publish: Publish) -> Publish:
    """Wrap `publish` so that progress never decreases, such as when a file is written a second time."""
    highest = 0.0

    def rising(event: Event) -> None:
        nonlocal highest
        if isinstance(event, ExportProgress):
            highest = max(highest, event.fraction)
            event = replace(event, fraction=highest)
        publish(event)

    return rising


def _has_read_test(run_dir: RunDir) -> bool:
    """Whether the run has evaluated its test images: an export must not be the first to do so."""
    if not run_dir.events.is_file():
        return False
    return any(isinstance(r.event, Evaluated) and r.event.split == "test" for r in read_records(run_dir.events))


class _Export:
    """An export in progress."""

    def __init__(
        self, run_dir: RunDir, source: ExportSource, formats: tuple[str, ...] | None, publish: Publish
    ) -> None:
        self._run_dir = run_dir
        self._source = source
        self._publish = publish
        configured = [name for name in FORMATS if name != "onnx" and getattr(source.config.export, name)]
        self._formats = configured if formats is None else [name for name in formats if name != "onnx"]
        self._files: dict[str, dict[str, Any]] = {}
        self._refused: dict[str, str] = {}

    def run(self, checkpoint_name: str) -> tuple[Exported, dict[str, str]]:
        """Write everything under temporary names, then move it into place, the card last."""
        self._publish(ExportProgress(stage="evaluating in fp32", fraction=0.2))
        measured = self._evaluate_fp32()
        metadata = metadata_of(self._source, measured)
        temporary = {name: self._run_dir.export / f".{file}.tmp{Path(file).suffix}" for name, file in FORMATS.items()}
        try:
            parity = self._write_checked_onnx(temporary["onnx"], metadata)
            self._files["onnx"] = {"accuracy": measured["accuracy"]} | self._speed(temporary["onnx"])
            for index, name in enumerate(self._formats):
                self._publish(ExportProgress(stage=f"writing {name}", fraction=0.75 + 0.2 * index / len(self._formats)))
                self._try(name, temporary, metadata)
            for name, facts in self._files.items():
                facts |= {"size_bytes": temporary[name].stat().st_size, "sha256": sha256_of(temporary[name])}
                set_mode(temporary[name], umask_mode())
                replace_file(temporary[name], self._run_dir.export / FORMATS[name])
            sync_folder(self._run_dir.export)
        finally:
            for path in temporary.values():
                path.unlink(missing_ok=True)
        self._write_facts(checkpoint_name, parity | measured, metadata)
        return self._announcement(parity, measured), self._refused

    def _evaluate_fp32(self) -> dict[str, Any]:
        last = [0.0]

        def poll(done: float) -> None:
            if done - last[0] >= 0.1:
                last[0] = done
                self._publish(ExportProgress(stage=f"evaluating in fp32, {done:.0%}", fraction=0.2 + 0.35 * done))

        result = self._source.measure(poll, lambda message: self._publish(Warned(message=message)))
        return {
            "split": self._source.split,
            "accuracy": result.accuracy,
            "correct": sum(result.correct),
            "split_images": sum(result.counts),
        }

    def _write_checked_onnx(self, target: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Write the ONNX file and compare it with the model; on a mismatch, retry without the exporter's optimizer."""
        problem = ""
        for optimize in (True, False):
            stage = "exporting" if optimize else "exporting without optimization"
            self._publish(ExportProgress(stage=stage, fraction=0.6))
            write_model(self._source, target, metadata, optimize=optimize)
            self._publish(ExportProgress(stage=f"checking on {NUM_IMAGES} images", fraction=0.7))
            parity = compare(self._source, target)
            problem = verdict(parity)
            if not problem:
                return parity | {"optimized": optimize, "embedded_preprocess": self._source.embed}
        raise ExportError(f"the exported model does not agree with the trained one: {problem}; nothing was written")

    def _try(self, name: str, temporary: Mapping[str, Path], metadata: Mapping[str, str]) -> None:
        """Write one more format; if it fails its gate, it is refused and the others are kept."""
        try:
            facts = self._write_format(name, temporary, metadata)
        except ExportError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - exporters raise types of their own; the other files are good
            log_traceback(self._run_dir, error)
            problem = explain(error)
        else:
            self._files[name] = facts
            return
        self._refused[name] = f"not written: {problem}"
        self._publish(Warned(message=f"export: {FORMATS[name]} not written: {problem}"))

    def _write_format(self, name: str, temporary: Mapping[str, Path], metadata: Mapping[str, str]) -> dict[str, Any]:
        """Write and check a format; returns facts about the file, ExportError when it is refused."""
        source, fp32, target = self._source, temporary["onnx"], temporary[name]
        if name == "pt2":
            write_pt2(source, target, metadata)
            check_pt2(source, target)
            return {}
        if name == "safetensors":
            write_safetensors(source, target, metadata)
            check_safetensors(source, target)
            return {}

        def poll(done: float) -> None:
            self._publish(ExportProgress(stage=f"checking {name}, {done:.0%}", fraction=0.85))

        if name == "int8":
            write_int8(source, fp32, target, metadata)
            return check_int8(source, fp32, target, poll) | self._speed(target)
        write_fp16(fp32, target, metadata)
        return check_fp16(source, fp32, target, poll)

    def _speed(self, path: Path) -> dict[str, Any]:
        self._publish(ExportProgress(stage="timing on this machine", fraction=0.72))
        return speed_of(path, self._source.size)

    def _write_facts(self, checkpoint_name: str, facts: dict[str, Any], metadata: Mapping[str, str]) -> None:
        facts |= {
            "same_data": self._source.same_data,
            "checkpoint": checkpoint_name,
            "checkpoint_sha256": metadata["checkpoint_sha256"],
            "size_bytes": self._files["onnx"]["size_bytes"],
        }
        files = self._files_by_name()
        card = card_of(self._source, metadata, files, run=self._run_dir.name, refused=self._refused, parity=facts)
        card["files_of_earlier_exports"] = earlier_files(self._run_dir.export, files)
        for name, content in (("parity.json", facts), ("model.json", card)):
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            write_atomically(self._run_dir.export / name, text.encode("utf-8", "backslashreplace"), private=False)

    def _files_by_name(self) -> dict[str, dict[str, Any]]:
        return {FORMATS[name]: facts for name, facts in self._files.items()}

    def _announcement(self, parity: Mapping[str, Any], measured: Mapping[str, Any]) -> Exported:
        main_file = self._files["onnx"]
        return Exported(
            step=self._source.checkpoint.step, path=f"export/{FORMATS['onnx']}", size_bytes=main_file["size_bytes"],
            max_abs_diff=parity["max_abs_diff"], images=parity["images"], accuracy=measured["accuracy"],
            split=measured["split"], files=self._files_by_name(),
        )  # fmt: skip


def _require_torch() -> None:
    if torch_release() < _MIN_TORCH:
        raise ExportError(
            f"export needs torch {'.'.join(map(str, _MIN_TORCH))} or newer, this is {torch.__version__}: "
            f"older exporters freeze the batch size. The checkpoint can be exported on another machine"
        )
