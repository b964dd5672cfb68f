"""`audit FOLDER|RUN`: finds wrong labels, near copies and odd pictures in a folder of images."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from trainer.config.reading_version import READING
from trainer.data.folder.layout import find_layout
from trainer.data.folder.suggested_config import Start
from trainer.errors import EXIT_OK, CheckpointError, ConfigError, DataError
from trainer.evaluation.run_settings import settings_now
from trainer.host.progress import progress_bar
from trainer.host.standard_streams import write_lines
from trainer.model.start_weights import find_start
from trainer.options import add_runs_dir, positive
from trainer.run.folder.run_dir import RunDir, find_run, log_stat, refuse_links, run_of_file

_OWN_FEATURES = (
    "warning: the features are those of a run that has learned these labels, wrong ones too, so that fewer of them stand out; "
    "better are weights that never saw them (--features)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `audit`."""
    parser.add_argument("what", metavar="FOLDER|RUN", help="a folder of images, or a run that was trained on one")
    parser.add_argument(
        "--features", metavar="WHAT",
        help="weights that have not seen these labels: imagenet, a run or a file (default: the run's start, or imagenet)",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=positive, default=20, metavar="N", help="findings to print of each kind (default: 20)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder for the tables (default: audit/ of the run)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")
    add_runs_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command `audit FOLDER|RUN`."""
    subject = _subject(arguments)
    layout = find_layout(subject.root, subject.reading)
    # Imported late: PyTorch takes seconds, and a wrong folder should be refused at once.
    from trainer.audit.audit import examine
    from trainer.audit.audit_report import report_lines, write_report
    from trainer.audit.backbone import Backbone

    with progress_bar() as progress:
        try:
            backbone = Backbone.load(subject.start, arguments.runs_dir, arguments.device, progress, fit=subject.fit)
        except CheckpointError as error:
            raise CheckpointError(f"{error}\nOther weights for the features: --features RUN or a file") from error
        audit = examine(layout, backbone, progress)
    write_lines([*report_lines(audit, top=arguments.top), *subject.remarks])
    folder = arguments.output or (subject.run_dir.path / "audit" if subject.run_dir else None)
    if folder is None:
        write_lines(["", "the tables of all pictures are written with -o DIR"])
        return EXIT_OK
    if subject.run_dir and not arguments.output:
        refuse_links(subject.run_dir)
    try:
        write_report(folder, audit)
    except OSError as error:
        raise DataError(f"{folder}: the tables cannot be written: {error.strerror or error}") from error
    write_lines(["", f"written to {folder}"])
    return EXIT_OK


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is audited, and with what."""

    root: Path
    start: Start  # weights for the features
    run_dir: RunDir | None = None  # the run, if one was named
    reading: int = READING
    fit: str = "crop"
    remarks: tuple[str, ...] = ()


def _subject(arguments: argparse.Namespace) -> _Subject:
    path = Path(arguments.what).expanduser()
    if path.is_dir() and log_stat(str(path)) is None:
        start = _start(arguments.features or "imagenet", arguments.runs_dir, "--features")
        return _Subject(root=path, start=start, remarks=_remarks(start, path))
    run_dir = find_run(arguments.what, arguments.runs_dir)
    config = settings_now(run_dir)
    if config.data.kind != "imagefolder":
        raise ConfigError(f"{run_dir.path}: was trained on {config.data.kind}; an audit needs a folder of images")
    root = Path(config.data.root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: the run's images no longer exist there; name the folder: r18-tui audit FOLDER")
    reference, option = arguments.features or config.model.init_from, "--features"
    if not arguments.features:
        option = f"{run_dir.path}: model.init_from"
    start = _start(reference or str(run_dir.path), arguments.runs_dir, option)
    return _Subject(
        root=root, start=start, run_dir=run_dir, reading=config.data.reading, fit=config.data.fit, remarks=_remarks(start, root)
    )  # fmt: skip


def _start(reference: str, runs_dir: Path, option: str) -> Start:
    if reference == "none":
        raise CheckpointError(f"{option}: none has no features; give imagenet, a run or a file")
    return find_start(reference, runs_dir, option=option)


def _remarks(start: Start, root: Path) -> tuple[str, ...]:
    """A warning where the features are those of a run on the same folder."""
    path = Path(start.reference or "")
    run_dir = RunDir(path) if path.is_dir() else run_of_file(path)
    if run_dir is None or not run_dir.config.is_file():
        return ()
    config = settings_now(run_dir)
    same = config.data.kind == "imagefolder" and Path(config.data.root).expanduser().resolve() == root.resolve()
    return ("", _OWN_FEATURES) if same else ()
