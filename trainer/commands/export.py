"""`export RUN`: writes files for other programs, announced only after they agree with the model on real images.

Everything is written under a temporary name; a failure leaves earlier files as they were.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import EXIT_OK, ExportError, R18Error
from trainer.export.formats import FORMATS
from trainer.host.standard_streams import write_lines
from trainer.options import add_runs_dir, add_which
from trainer.run.folder.lock import RunLock
from trainer.run.folder.run_dir import RunDir, find_run, refuse_links
from trainer.run.log.codec import encode
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import Exported, ExportFailed, ExportProgress
from trainer.run.log.run_events import Warned
from trainer.run.log.writer import EventLog
from trainer.session.error_report import explain, log_traceback

if TYPE_CHECKING:
    from trainer.session.export_run import ExportOptions

_BESIDE_TRAINING = 5
"""Niceness of an export: at equal priority it would slow each training step (`benchmarks/export_beside.py`)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    add_which(parser)
    parser.add_argument("--data", type=Path, metavar="DIR", help="the image folder, when it has moved")
    parser.add_argument(
        "--format",
        action="append",
        choices=tuple(FORMATS),
        help="format to write besides model.onnx; repeat for more (default: from the run's configuration)",
    )
    parser.add_argument(
        "--embed-preprocess", action="store_true", help="include preprocessing: uint8 pixels in, probabilities out"
    )
    parser.add_argument("--events", action="store_true", help=argparse.SUPPRESS)
    add_runs_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command `export RUN`; R18Error, which the log has too, when the run cannot be exported."""
    from trainer.session.export_run import ExportOptions  # imports PyTorch: `--help` does not wait for it

    run_dir = find_run(arguments.run, arguments.runs_dir)
    options = ExportOptions(
        which=arguments.which,
        data_root=None if arguments.data is None else arguments.data.expanduser(),
        formats=None if arguments.format is None else tuple(dict.fromkeys(arguments.format)),
        embed=True if arguments.embed_preprocess else None,
    )
    if arguments.events:
        # The child of a live trainer: the parent logs its output.
        os.nice(_BESIDE_TRAINING)
        _publishing(run_dir, options, _print_event)
        return EXIT_OK
    refuse_links(run_dir)
    lock = RunLock.take(run_dir)
    log = EventLog(run_dir.events)
    try:

        def publish(event: Event) -> None:
            log.publish(event)
            _print_lines(event)

        refused = _publishing(run_dir, options, publish)
    finally:
        log.close()
        lock.release()
    if refused and options.formats is not None:
        raise ExportError("\n".join(f"{name}: {problem}" for name, problem in refused.items()))
    return EXIT_OK


def _publishing(run_dir: RunDir, options: ExportOptions, publish: Callable[[Event], None]) -> dict[str, str]:
    from trainer.session.export_run import export_run

    try:
        exported, refused = export_run(run_dir, options, publish)
        publish(exported)
        return refused
    except R18Error as error:
        publish(ExportFailed(error=str(error)))
        raise
    except OSError as error:
        publish(ExportFailed(error=f"cannot be written: {error}"))
        raise ExportError(f"{run_dir.export}: cannot be written: {error}") from error
    except Exception as error:
        # Exporters and runtimes raise types of their own.
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


def _print_lines(event: Event) -> None:
    if isinstance(event, ExportProgress):
        write_lines([f"{event.fraction:4.0%}  {event.stage}"])
    elif isinstance(event, Warned):
        write_lines([f"      {event.message}"])
    elif isinstance(event, Exported):
        write_lines(_report(event))
    sys.stdout.flush()


def _report(event: Exported) -> Iterable[str]:
    accuracy = f", {event.split} accuracy {event.accuracy:.2%}" if event.accuracy is not None else ""
    yield (
        f"wrote {event.path} ({event.size_bytes / 1e6:.1f} MB, step {event.step}{accuracy}); onnxruntime agrees on "
        f"{event.images} images, largest difference {event.max_abs_diff:.1e}"
    )
    for name, facts in event.files.items():
        parts = [f"{facts['size_bytes'] / 1e6:6.1f} MB"]
        if "agreement" in facts:
            parts.append(f"accuracy {facts['accuracy']:.2%}, answers as fp32 on {facts['agreement']:.2%}")
        if "latency_ms" in facts:
            parts.append(
                f"{facts['latency_ms']:.1f} ms per image, {facts['images_per_s']:,.0f} images/s (onnxruntime, CPU)"
            )
        yield f"  {name:18} {', '.join(parts)}"
