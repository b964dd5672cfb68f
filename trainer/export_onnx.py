"""Export to ONNX, announced only after onnxruntime has agreed with the model on real images.

Everything is written under a temporary name; a failure leaves an earlier `model.onnx` as it was. Exporters have silently
produced wrong ResNets before (pytorch/pytorch#169178), so the comparison is not an option.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import trainer
from trainer.checkpoint import Checkpoint, CheckpointFolder, read_checkpoint
from trainer.config import Config
from trainer.config_loader import build_config
from trainer.data.augment import Normalize
from trainer.data.build import load_held_out
from trainer.data.dataset import DataSet, Split
from trainer.data.draws import epoch_order
from trainer.data.lost_images import LostImages
from trainer.errors import EXIT_OK, DataError, ExportError, R18Error
from trainer.evaluate import evaluate
from trainer.failures import explain, log_traceback
from trainer.model import build_model
from trainer.run.atomic import sync_folder, write_atomically
from trainer.run.event_log import EventLog
from trainer.run.events import Event, Exported, ExportFailed, ExportProgress, Record, Warned, encode
from trainer.run.holder import RunLock
from trainer.run.store import RunDir, find_run, refuse_links
from trainer.step import Numerics
from trainer.versions import torch_release

TOLERANCE = 1e-3
"""Largest difference of any logit that is accepted, in fp32."""
NUM_IMAGES = 256
"""Real images on which top-1 must agree without exception."""
BATCH_SIZES = (1, 2, 7)
"""Batches on which the dynamic batch dimension is tried."""
_LEAST_TORCH = (2, 9)

Publish = Callable[[Event], None]


def main(arguments: argparse.Namespace) -> int:
    """The command `export RUN`.

    Args:
        arguments: From `trainer.arguments.add_export_arguments`.

    Raises:
        R18Error: When the run cannot be exported; the log has said so too.
    """
    run_dir = find_run(arguments.run, arguments.runs_dir)
    if arguments.events:
        # The child of a live trainer: the parent logs what is printed here.
        _publishing(run_dir, arguments, _print_event)
        return EXIT_OK
    refuse_links(run_dir)
    lock = RunLock.take(run_dir)
    log = EventLog(run_dir.events)
    try:

        def publish(event: Event) -> None:
            log.publish(event)
            _say(event)

        _publishing(run_dir, arguments, publish)
        return EXIT_OK
    finally:
        log.close()
        lock.release()


def export_run(run_dir: RunDir, *, which: str, data_root: Path | None, publish: Publish) -> Exported:
    """Export a checkpoint of a run and prove the file equal to the model.

    Args:
        run_dir: The run.
        which: `best`, `latest`, `default` or a step.
        data_root: Where the image folder is now, when it has moved.
        publish: Told about progress.

    Returns:
        The event that announces the file.

    Raises:
        R18Error: When the checkpoint, the data or the exported file is not as it must be.
    """
    _require_torch()
    publish(ExportProgress(stage="reading the checkpoint", fraction=0.05))
    path = CheckpointFolder(run_dir, keep=2).choose(which)
    checkpoint = read_checkpoint(path)
    config = _config_of(checkpoint, data_root)
    subject = _Subject.of(
        checkpoint, config,
        lambda stage, share: publish(ExportProgress(stage=stage, fraction=round(0.05 + 0.15 * (share or 0.0), 3))),
    )  # fmt: skip
    same_data = subject.dataset.fingerprint == checkpoint.meta["fingerprint"]
    if not same_data:
        publish(
            Warned(
                message="the images are not those that the run was trained with; the accuracy is of what is there now"
            )
        )
    publish(ExportProgress(stage="measuring in fp32", fraction=0.2))
    measured = _measure(subject, publish)
    temporary = run_dir.export / ".model.onnx.tmp"
    try:
        parity = _export_proven(subject, temporary, measured, checkpoint, publish)
        size = temporary.stat().st_size
        os.chmod(temporary, 0o600)
        os.replace(temporary, run_dir.export / "model.onnx")
        sync_folder(run_dir.export)
    finally:
        temporary.unlink(missing_ok=True)
    facts = (
        parity
        | measured
        | {
            "same_data": same_data,
            "checkpoint": path.name,
            "checkpoint_sha256": checkpoint.digest(),
            "size_bytes": size,
        }
    )
    write_atomically(run_dir.export / "parity.json", json.dumps(facts, indent=2).encode() + b"\n")
    return Exported(
        step=checkpoint.step, path="export/model.onnx", size_bytes=size, max_abs_diff=parity["max_abs_diff"],
        images=parity["images"], accuracy=measured["accuracy"], split=measured["split"],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is exported and what it is tried on.

    Attributes:
        model: fp32, on the CPU, in eval mode, in plain memory order.
        split: Name of the held-out split.
    """

    model: nn.Module
    config: Config
    dataset: DataSet
    split: str
    normalize: Normalize
    preprocess: dict[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint, config: Config, progress: Callable[[str, float | None], None]) -> _Subject:
        meta = checkpoint.meta
        model = build_model(config.model, len(meta["classes"]), config.run.seed)
        model.load_state_dict(checkpoint.measured_weights)
        try:
            dataset = load_held_out(config, progress)
        except DataError as error:
            raise DataError(f"{error}\nWhere the folder has moved, give it with --data DIR") from error
        if list(dataset.classes) != meta["classes"]:
            raise ExportError(
                f"{config.data.root}: its classes are not those that the run was trained on; give the folder with --data DIR"
            )
        return cls(
            model=model.eval(), config=config, dataset=dataset, split=str(meta["selection_split"]),
            normalize=Normalize.of(meta["mean"], meta["std"], torch.device("cpu")), preprocess=meta["preprocess"],
        )  # fmt: skip

    def images(self) -> tuple[Tensor, int]:
        """Normalised real images (N, 3, S, S), held-out ones first, and how many of them are held-out."""
        held_out = _some(self.dataset.splits[self.split], NUM_IMAGES)
        topped_up = _some(self.dataset.splits["train"], NUM_IMAGES - len(held_out))
        return self.normalize(torch.stack(held_out + topped_up)).permute(0, 3, 1, 2).contiguous(), len(held_out)


def _publishing(run_dir: RunDir, arguments: argparse.Namespace, publish: Publish) -> None:
    try:
        publish(export_run(run_dir, which=arguments.which, data_root=arguments.data, publish=publish))
    except R18Error as error:
        publish(ExportFailed(error=str(error)))
        raise
    except OSError as error:
        publish(ExportFailed(error=f"cannot be written: {error}"))
        raise ExportError(f"{run_dir.export}: cannot be written: {error}") from error
    except Exception as error:
        # Exporters and runtimes fail with types of their own.
        log_traceback(run_dir, error)
        publish(ExportFailed(error=explain(error)))
        raise ExportError(f"{run_dir.export}: {explain(error)}") from error
    except BaseException as error:
        # Ctrl-C: the log must not end in the middle of an export.
        publish(ExportFailed(error=f"stopped ({type(error).__name__})"))
        raise


def _print_event(event: Event) -> None:
    sys.stdout.buffer.write(encode(Record(seq=0, time=time.time(), event=event)))
    sys.stdout.buffer.flush()


def _say(event: Event) -> None:
    if isinstance(event, ExportProgress):
        sys.stdout.write(f"{event.fraction:4.0%}  {event.stage}\n")
    elif isinstance(event, Warned):
        sys.stdout.write(f"      {event.message}\n")
    elif isinstance(event, Exported):
        accuracy = f", {event.split} accuracy {event.accuracy:.2%}" if event.accuracy is not None else ""
        sys.stdout.write(
            f"wrote {event.path} ({event.size_bytes / 1e6:.1f} MB, step {event.step}{accuracy}); onnxruntime agrees on "
            f"{event.images} images, largest difference {event.max_abs_diff:.1e}\n"
        )
    sys.stdout.flush()


def _require_torch() -> None:
    if torch_release() < _LEAST_TORCH:
        raise ExportError(
            f"export needs torch {'.'.join(map(str, _LEAST_TORCH))} or newer, this is {torch.__version__}: "
            f"older exporters freeze the batch size. The checkpoint can be exported on another machine"
        )


def _config_of(checkpoint: Checkpoint, data_root: Path | None) -> Config:
    overrides = [f"data.root={data_root}"] if data_root is not None else []
    return build_config(dict(checkpoint.meta["config"]), {}, "checkpoint", overrides)


def _some(split: Split, count: int) -> list[Tensor]:
    """Up to `count` images from all over a split, always the same ones.

    In a folder the first images are all of one class. Files that training left out as unreadable are passed over here too.
    """
    images: list[Tensor] = []
    for row in epoch_order(len(split), seed=0, epoch=0).tolist():
        if len(images) >= count:
            break
        with contextlib.suppress(DataError):
            images.append(split.pixels([row])[0].cpu())
    return images


def _measure(subject: _Subject, publish: Publish) -> dict[str, Any]:
    """A fresh fp32 evaluation of the whole held-out split."""
    last = [0.0]

    def poll(done: float) -> None:
        if done - last[0] >= 0.1:
            last[0] = done
            publish(ExportProgress(stage=f"measuring in fp32, {done:.0%}", fraction=0.2 + 0.4 * done))

    result = evaluate(
        subject.model,
        subject.dataset.splits[subject.split],
        normalize=subject.normalize,
        numerics=Numerics(precision="fp32", channels_last=False),
        num_classes=len(subject.dataset.classes),
        batch_size=min(subject.config.eval.batch_size, 500),
        tta=False,
        device=torch.device("cpu"),
        poll=poll,
        lost=LostImages(lambda message: publish(Warned(message=message))),
    )
    images = sum(result.counts)
    return {"split": subject.split, "accuracy": result.accuracy, "correct": sum(result.correct), "split_images": images}


def _export_proven(
    subject: _Subject, target: Path, measured: dict[str, Any], checkpoint: Checkpoint, publish: Publish
) -> dict[str, Any]:
    """Write the file and compare it; once more without the exporter's optimizer if the first one is wrong."""
    problem = ""
    for optimize in (True, False):
        publish(ExportProgress(stage="exporting" if optimize else "exporting without optimization", fraction=0.65))
        _write_model(subject, target, _metadata(subject, measured, checkpoint), optimize=optimize)
        publish(ExportProgress(stage=f"checking on {NUM_IMAGES} images", fraction=0.85))
        parity = _compare(subject, target)
        problem = _verdict(parity)
        if not problem:
            return parity | {"optimized": optimize}
    raise ExportError(f"the exported model does not agree with the trained one: {problem}; nothing was written")


def _write_model(subject: _Subject, target: Path, metadata: dict[str, str], *, optimize: bool) -> None:
    import onnx

    size = subject.config.data.image_size
    opset = subject.config.export.opset
    program = torch.onnx.export(
        subject.model,
        # Two images: some exporters take a batch of one for a constant.
        (torch.zeros(2, 3, size, size),),
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=({0: "batch"},),
        opset_version=None if opset == "auto" else opset,
        external_data=False,
        dynamo=True,
        optimize=optimize,
        verbose=False,
    )
    if program is None:
        raise ExportError("the exporter returned nothing")
    proto = program.model_proto
    # Last, and read again below: tools that rewrite graphs drop metadata.
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    target.parent.mkdir(exist_ok=True)
    onnx.save(proto, str(target))
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    found = {prop.key: prop.value for prop in onnx.load(str(target)).metadata_props}
    if found != metadata:
        raise ExportError(f"{target}: the metadata were not kept")


def _metadata(subject: _Subject, measured: dict[str, Any], checkpoint: Checkpoint) -> dict[str, str]:
    import onnx
    import onnxruntime
    import onnxscript

    return {
        "classes": json.dumps(list(subject.dataset.classes), ensure_ascii=False),
        "preprocess": json.dumps(subject.preprocess),
        "accuracy": f"{measured['accuracy']:.6f}",
        "accuracy_split": measured["split"],
        "accuracy_correct": str(measured["correct"]),
        "accuracy_images": str(measured["split_images"]),
        "step": str(checkpoint.step),
        "weights": checkpoint.weights_kind,
        "checkpoint_sha256": checkpoint.digest(),
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


def _compare(subject: _Subject, path: Path) -> dict[str, Any]:
    """Logits of torch and onnxruntime on real images, in batches of several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images, held_out = subject.images()
    differences = []
    for count in BATCH_SIZES:
        ours, theirs = _both(subject.model, session, images[:count])
        differences.append(np.abs(ours - theirs).max())
    agreeing = 0
    for chunk in images.split(64):
        ours, theirs = _both(subject.model, session, chunk)
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
        "opset": _opset(path),
    }


def _opset(path: Path) -> int:
    import onnx

    return max(int(entry.version) for entry in onnx.load(str(path)).opset_import if entry.domain in ("", "ai.onnx"))


def _both(model: nn.Module, session: Any, batch: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with torch.no_grad():
        ours: NDArray[np.float32] = model(batch).numpy()
    theirs: NDArray[np.float32] = session.run(["output"], {"input": batch.numpy()})[0]
    if ours.shape != theirs.shape:
        raise ExportError(f"the exported model gives {theirs.shape} for a batch of {len(batch)}, expected {ours.shape}")
    return ours, theirs


def _verdict(parity: dict[str, Any]) -> str:
    """Why the file is refused; empty when it is not. Written so that NaN is refused too."""
    if not parity["max_abs_diff"] <= TOLERANCE:
        return f"a logit differs by {parity['max_abs_diff']:.2e}, more than {TOLERANCE:g}"
    if parity["top1_agreeing"] != parity["images"]:
        return f"top-1 agrees on {parity['top1_agreeing']} of {parity['images']} images only"
    return ""
