"""Descriptors 0, 1 and 2 of a program that may have been started without them, or whose reader may have left."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable

from trainer.errors import DiskError
from trainer.host.safe_text import printable


def open_standard_streams() -> None:
    """Open each closed descriptor of 0, 1 and 2 on the null device.

    Shells (`<&-`, `>&-`) and some schedulers close them. The next opened file, such as the lock of a run, would take
    the free number, and code that redirects standard input later would close it.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number, which is this one: all lower ones are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            stream = open(fd, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 - stays open
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Like standard error: a name that the terminal's encoding cannot represent must not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")


def write_out(text: str) -> None:
    """Write to standard output and flush; BrokenPipeError when the reader has left, DiskError on another failure."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise DiskError(f"standard output: cannot be written: {error.strerror}") from error


def write_lines(lines: Iterable[str]) -> None:
    """Write lines for people to standard output, without control characters."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))


def drop_output() -> None:
    """Redirect standard output to the null device, so that the final flush does not fail like the last write."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
