"""`init FOLDER`: surveys a folder of images and writes a configuration that explains its choices. Torch-free."""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from trainer.audit.survey_copies import copies_in
from trainer.config.loader import build_config
from trainer.config.yaml_reader import read_mapping, write_scalar
from trainer.data.folder.suggested_config import Choice, Start, aspect_ratio, choose, short_sides
from trainer.data.folder.survey import Survey, survey_folder
from trainer.errors import EXIT_OK, ConfigError, DataError
from trainer.host.atomic_files import write_atomically
from trainer.host.gpu import gpu_present
from trainer.host.progress import progress_bar
from trainer.host.safe_text import plain_name, printable
from trainer.host.standard_streams import write_lines
from trainer.model.start_weights import find_start
from trainer.options import add_runs_dir

_NAMED = 5  # largest number of files that the summary names of each kind
_CLASSES_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `init`."""
    parser.add_argument(
        "folder", metavar="FOLDER", help="class folders, or train/ and test/ and/or val/ with class folders"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="output file (default: FOLDER's name with .yaml, here)"
    )
    parser.add_argument(
        "--init-from", metavar="WHAT", help="weights to start from: imagenet (default), none, a run, or a file"
    )
    add_runs_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command `init FOLDER`; R18Error when the layout is unknown or the file cannot be written."""
    root = Path(arguments.folder).expanduser()
    target = arguments.output or Path(f"{plain_name(root)}.yaml")
    if os.path.lexists(target):
        raise ConfigError(f"{target}: already exists; delete it, or write another file with -o FILE")
    start = find_start(arguments.init_from, arguments.runs_dir)
    with progress_bar() as progress:
        survey = survey_folder(root, progress)
        copies = copies_in(survey, progress)
    survey.require_images_per_class(2)
    text = configuration(survey, root=arguments.folder, start=start, gpu=gpu_present())
    write_lines(summary(survey))
    write_lines(
        copies.lines()
        if copies is not None
        else [f"  near copies   not looked for: r18-tui audit {shlex.quote(arguments.folder)} does"]
    )
    try:
        write_atomically(target, text.encode(), private=False)
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written: {error.strerror or error}; choose a place with -o FILE"
        ) from error
    file = shlex.quote(str(target))
    write_lines(["", f"wrote {target}, which explains its choices", f"next: r18-tui {file}"])
    if start.reference == "imagenet":
        write_lines(
            [f"      (downloads ImageNet weights once, 45 MB; r18-tui doctor {file} checks whether that works here)"]
        )
    return EXIT_OK


def configuration(survey: Survey, *, root: str, start: Start, gpu: bool) -> str:
    """The commented configuration for a folder, as YAML that this program reads; `root` is the value of `data.root`."""
    try:
        root.encode()
    except UnicodeEncodeError:
        raise DataError(f"{root!r}: is not named in UTF-8; rename the folder") from None
    choices = choose(survey, name=plain_name(survey.layout.root), root=root, start=start, gpu=gpu)
    today = datetime.date.today().isoformat()
    counts = survey.counts("train")
    head = [
        f"# {printable(survey.layout.root.name)}: {len(counts)} classes, {_range(counts)} training images each.",
        f"# Written by r18-tui init on {today}. Change what you like: docs/configuration.md explains every key,",
        "# and r18-tui reports wrong ones.",
    ]
    text = "\n".join([*head, *_lines(choices)]) + "\n"
    values, lines = read_mapping(text, source="the new configuration")
    if build_config(values, lines, "the new configuration").data.root != root:
        raise DataError(f"{root}: this name cannot be written into a configuration; rename the folder")
    return text


def summary(survey: Survey) -> list[str]:
    """Contents and problems of the folder, as lines for people."""
    layout = survey.layout
    where = "class folders, no splits" if layout.flat else ", ".join(f"{name}/" for name in layout.folders)
    total = sum(len(usable) for usable in survey.usable.values())
    head = f"{layout.root}: {total:,} images of {len(layout.classes)} classes ({where})"
    lines = [head, "", *_class_table(survey), ""]
    sides, ratio = short_sides(survey), aspect_ratio(survey)
    middle = int(statistics.median(sides))
    lines.append(
        f"  sizes         short side {sides[0]:,} to {sides[-1]:,} pixels, half of them {middle:,} or more; "
        f"typically {ratio:.2f} times as long as wide"
    )
    modes = Counter(finding.mode for usable in survey.usable.values() for _, finding in usable)
    shown = ", ".join(f"{number:,} {mode}" for mode, number in modes.most_common())
    over = "; what is transparent is shown over white" if modes.keys() & {"RGBA", "LA", "PA"} else ""
    deep = any(finding.brightest >= 0 for usable in survey.usable.values() for _, finding in usable)
    scale = "; with more than 8 bits per value, white is the largest value that the file can hold" if deep else ""
    lines.append(f"  pixels        {shown}{over}{scale}")
    if survey.unreadable:
        named = [f"{path.relative_to(layout.root)} ({reason})" for path, reason in survey.unreadable]
        lines.append(f"  unreadable    {len(named):,}, skipped: {_some(named)}")
    lines += [f"  note          {note}" for note in survey.notes]
    if survey.copies:
        lines.append(f"  copies        {survey.copies:,} training images are the same as another of their class")
    lines += [f"  warning       {remark}" for remark in survey.remarks()]
    lines += [f"  warning       {name}/ has no images of {_some(missing)}" for name, missing in _missing(survey)]
    return lines


def _lines(choices: list[Choice]) -> Iterator[str]:
    for group, members in groupby(choices, key=lambda choice: choice.key.partition(".")[0]):
        yield f"{group}:"
        for choice in members:
            if choice.reason:
                yield f"  # {choice.reason}"
            yield f"  {choice.key.partition('.')[2]}: {write_scalar(choice.value)}"


def _class_table(survey: Survey) -> list[str]:
    splits = list(survey.usable)
    columns = [survey.counts(split) for split in splits]
    width = min(max([len("class"), *(len(name) for name in survey.layout.classes)]), 40)
    lines = [f"  {'class':{width}}" + "".join(f"{split:>9}" for split in splits)]
    for row, name in list(enumerate(survey.layout.classes))[:_CLASSES_SHOWN]:
        lines.append(f"  {name[:width]:{width}}" + "".join(f"{column[row]:>9,}" for column in columns))
    more = len(survey.layout.classes) - _CLASSES_SHOWN
    return [*lines, f"  ... and {more:,} more classes"] if more > 0 else lines


def _missing(survey: Survey) -> list[tuple[str, list[str]]]:
    """Splits in which some classes have no images, with these classes."""
    found = []
    for split in survey.usable:
        missing = [name for name, count in zip(survey.layout.classes, survey.counts(split), strict=True) if not count]
        if missing:
            found.append((split, missing))
    return found


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _some(items: list[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
