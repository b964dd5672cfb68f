"""`r18-tui sync RUN --to TRACKER`; also the child process that a live run starts for each tracker."""

from __future__ import annotations

import argparse
import os
from typing import get_args

from trainer.config.trackers import TrackerName, refuse_missing
from trainer.errors import EXIT_OK
from trainer.host.standard_streams import write_out
from trainer.options import add_runs_dir, positive
from trainer.run.diagnosis.resource_rules import lines_missing
from trainer.run.folder.run_dir import find_run
from trainer.trackers.relay import relay_log

_NICENESS = 10  # a training process has priority


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `sync`."""
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    parser.add_argument("--to", required=True, choices=get_args(TrackerName), help="the tracker")
    # For a process started by a trainer: exits after the process with this id has ended.
    parser.add_argument("--until-ends", type=positive, help=argparse.SUPPRESS)
    add_runs_dir(parser)


def main(given: argparse.Namespace) -> int:
    """Upload a run to a tracker; R18Error when there is no such run or tracker, or another process is uploading it."""
    run_dir = find_run(given.run, given.runs_dir)
    refuse_missing([given.to])
    follows = given.until_ends
    if follows is not None:
        os.nice(_NICENESS)
    feed = relay_log(run_dir, given.to, lambda: follows is None or os.getppid() != follows)
    place = run_dir.sinks / given.to
    write_out(f"{given.to} has {run_dir.name} up to step {feed.step:,}; its files are in {place}\n")
    if feed.bad_lines:
        write_out(f"{lines_missing(feed.bad_lines)}\n")
    if feed.held:
        write_out(f"{feed.held:,} steps after the newest checkpoint wait for the next one: a resume would undo them\n")
    return EXIT_OK
