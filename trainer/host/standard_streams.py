"""The descriptors 0, 1 and 2 of a program that may have been started without them, or whose reader has left."""

from __future__ import annotations

import io
import os
import sys

from trainer.errors import DiskError


def open_standard_streams() -> None:
    """Open what is closed of 0, 1 and 2, on nothing.

    A shell closes them with `<&-` and `>&-`, some schedulers by themselves. The first file that is opened then takes the free
    number, and whoever redirects standard input later closes that file, the lock of a run for example.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number, which is this one: those below are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            stream = open(fd, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 - for good
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error is: a name that this terminal's encoding does not have must not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")


def write_out(text: str) -> None:
    """Write to standard output, at once.

    Raises:
        BrokenPipeError: When whoever read has left.
        DiskError: When it cannot be written otherwise.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise DiskError(f"standard output: cannot be written: {error.strerror}") from error


def drop_output() -> None:
    """Point standard output at nothing, so that the end of the program does not fail as its last words did."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
