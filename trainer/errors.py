"""Errors that a user can act on. Messages have the failure, its place, the value seen and expected, and what to do."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: a resume can continue once the disk has room again
EXIT_SIGHUP = 129
EXIT_SIGINT = 130
EXIT_SIGPIPE = 141
EXIT_SIGTERM = 143


class R18Error(Exception):
    """A failure that is explained to the user without a traceback; `exit_code` is that of a process it ends."""

    exit_code = EXIT_FAILED


class ConfigError(R18Error):
    """The configuration or the command line is wrong; nothing has been written."""

    exit_code = EXIT_USAGE


class DataError(R18Error):
    """The data set is missing, unreadable or too small for the configuration."""

    exit_code = EXIT_USAGE


class DataLostError(DataError):
    """Images that were readable when the run began have become unreadable; the run can be resumed once that is repaired."""

    exit_code = EXIT_RESUMABLE


class DeviceError(R18Error):
    """The requested device does not exist, or torch cannot use it."""

    exit_code = EXIT_USAGE


class RunError(R18Error):
    """A run directory cannot be found, created or locked."""

    exit_code = EXIT_USAGE


class CheckpointError(R18Error):
    """A checkpoint is corrupt, foreign or does not fit the run."""

    exit_code = EXIT_USAGE


class DamagedCheckpointError(CheckpointError):
    """A checkpoint's content differs from what was written."""


class ForeignCheckpointError(CheckpointError):
    """A file is not a checkpoint of this program."""


class DiskError(R18Error):
    """The disk is full or cannot be written; the run can be resumed once that is repaired."""

    exit_code = EXIT_RESUMABLE


class ExportError(R18Error):
    """The exported model could not be verified against the trained one, or could not be written."""


_MEMORY_RAN_OUT = (
    "out of memory",
    "can't allocate memory",  # host memory: c10/core/impl/alloc_cpu.cpp
    "alloc_failed",  # workspaces of cuBLAS and cuDNN
    "unable to find an engine",  # a convolution on CUDA, none of whose workspaces could be allocated
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether host or device memory ran out; torch raises its own type on CUDA only, so the message decides."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _MEMORY_RAN_OUT)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the C++ stack that torch appends."""
    return str(error).partition("\n")[0]


def exit_code_of(error: BaseException) -> int:
    """The exit code of a process that an error ends."""
    if isinstance(error, R18Error):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return EXIT_SIGINT
    return EXIT_FAILED
