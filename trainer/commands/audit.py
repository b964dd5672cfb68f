"""`audit FOLDER|RUN`: finds wrong labels, near copies and odd pictures in a folder of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.data.folder.layout import find_layout
from trainer.data.folder.suggested_config import Start
from trainer.errors import EXIT_OK, CheckpointError, ConfigError, DataError
from trainer.host.progress import progress_bar
from trainer.host.standard_streams import write_lines
from trainer.model.start_weights import find_start
from trainer.options import add_runs_dir, positive
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import RunDir, find_run, refuse_links

_OWN_FEATURES = (
    "warning: the features are those of the run itself, which has learned these labels, wrong ones too; it finds fewer of "
    "them than weights that never saw them (--features)"
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
    root, run_dir, start, remarks = _subject(arguments)
    layout = find_layout(root)
    # Imported late: PyTorch takes seconds, and a wrong folder should be refused at once.
    from trainer.audit.audit import examine
    from trainer.audit.audit_report import report_lines, write_report
    from trainer.audit.backbone import Backbone

    with progress_bar() as progress:
        backbone = Backbone.load(start, arguments.runs_dir, arguments.device, progress)
        audit = examine(layout, backbone, progress)
    write_lines([*report_lines(audit, top=arguments.top), *remarks])
    folder = arguments.output or (run_dir.path / "audit" if run_dir else None)
    if folder is None:
        write_lines(["", "the tables of all pictures are written with -o DIR"])
        return EXIT_OK
    if run_dir and not arguments.output:
        refuse_links(run_dir)
    try:
        write_report(folder, audit)
    except OSError as error:
        raise DataError(f"{folder}: the tables cannot be written: {error.strerror or error}") from error
    write_lines(["", f"written to {folder}"])
    return EXIT_OK


def _subject(arguments: argparse.Namespace) -> tuple[Path, RunDir | None, Start, list[str]]:
    """The folder, the run if one was named, the weights for the features, and remarks."""
    path = Path(arguments.what).expanduser()
    if path.is_dir() and not (path / "config.yaml").is_file():
        return path, None, _start(arguments.features or "imagenet", arguments.runs_dir), []
    run_dir = find_run(arguments.what, arguments.runs_dir)
    config = read_run_config(run_dir)
    if config.data.kind != "imagefolder":
        raise ConfigError(f"{run_dir.path}: was trained on {config.data.kind}; an audit needs a folder of images")
    reference = arguments.features or config.model.init_from
    remarks = [] if reference else ["", _OWN_FEATURES]
    return (
        Path(config.data.root).expanduser(),
        run_dir,
        _start(reference or str(run_dir.path), arguments.runs_dir),
        remarks,
    )


def _start(reference: str, runs_dir: Path) -> Start:
    if reference == "none":
        raise CheckpointError("--features: none has no features; give imagenet, a run or a file")
    return find_start(reference, runs_dir, option="--features")
