"""Errors that a user can act on, and the exit code that each one ends the program with.

Every message says what failed, where, the value seen and expected, and what to do next. One place, `exit_code_of`,
maps errors to exit codes; nothing else decides one.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RESUMABLE = 75
"""Stopped, but a resume can go on once the disk has room again: EX_TEMPFAIL of sysexits.h."""
EXIT_SIGHUP = 129
EXIT_SIGINT = 130
EXIT_SIGPIPE = 141
EXIT_SIGTERM = 143


class R18Error(Exception):
    """A failure that is explained to the user without a traceback.

    Attributes:
        exit_code: What the process exits with when this error ends it.
    """

    exit_code = EXIT_FAILED


class ConfigError(R18Error):
    """The configuration or the command line is wrong; nothing has been written."""

    exit_code = EXIT_USAGE


class DataError(R18Error):
    """The data set is missing, unreadable or too small for the configuration."""

    exit_code = EXIT_USAGE


class DataLostError(DataError):
    """Images that could be read when the run began cannot be read any more; it can be resumed once that is mended."""

    exit_code = EXIT_RESUMABLE


class DeviceError(R18Error):
    """The requested device is not there, or torch cannot use it."""

    exit_code = EXIT_USAGE


class RunError(R18Error):
    """A run directory cannot be found, made or taken."""

    exit_code = EXIT_USAGE


class CheckpointError(R18Error):
    """A checkpoint is corrupt, foreign or does not fit the run."""

    exit_code = EXIT_USAGE


class DamagedCheckpointError(CheckpointError):
    """A checkpoint's content is not what was written."""


class ForeignCheckpointError(CheckpointError):
    """A file is no checkpoint of this program."""


class DiskError(R18Error):
    """The disk is full or cannot be written; the run can be resumed once that is mended."""

    exit_code = EXIT_RESUMABLE


class ExportError(R18Error):
    """The exported model was not proven equal to the trained one, or could not be written."""


_MEMORY_RAN_OUT = (
    "out of memory",
    "can't allocate memory",  # of the host: c10/core/impl/alloc_cpu.cpp
    "alloc_failed",  # of cuBLAS and cuDNN, for their workspaces
    "unable to find an engine",  # of a convolution on CUDA, none of whose workspaces could be had
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether host or device memory ran out; torch raises a type of its own on CUDA only, so the words decide."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _MEMORY_RAN_OUT)


def first_line(error: BaseException) -> str:
    """What an error says, without the stack of C++ that torch appends."""
    return str(error).partition("\n")[0]


def exit_code_of(error: BaseException) -> int:
    """The exit code of a process that `error` ends.

    Args:
        error: Any exception.

    Returns:
        The error's own code if it is an `R18Error`, 130 for Ctrl-C, else 1.
    """
    if isinstance(error, R18Error):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return EXIT_SIGINT
    return EXIT_FAILED
