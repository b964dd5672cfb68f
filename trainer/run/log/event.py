"""The base of all events of a run, the record that becomes a line of `events.jsonl`, and field types.

Readers ignore unknown fields and kinds, so a field may be added in any release; removing or redefining one raises
`LOG_VERSION`. The format is documented in `docs/run-directory.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trainer.run.log.log_types import Amount, Positive, UnixTime

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_options: object) -> Any:
        """Do nothing: type checkers alone read it."""
        return lambda base: base


LOG_VERSION = 2


def _is_held_out(split: str) -> bool:
    return split in ("val", "test")


HeldOut = Annotated[str, _is_held_out]


def is_pair(value: Sequence[Any]) -> bool:
    """Whether a list has two entries."""
    return len(value) == 2


def _is_sampled(value: Sequence[Sequence[float]]) -> bool:
    """Whether a schedule has as many steps as rates."""
    return len(value) == 2 and len(value[0]) == len(value[1])


SampledSchedule = Annotated[list[list[float]], _is_sampled]

# Entries of a configuration and of a model's description that viewers read; the others may be anything.
Config = Annotated[
    dict[str, dict[str, Any]],
    {
        "data": {"image_size": Positive, "progressive": list[Annotated[list[Positive], is_pair]]},
        "eval": {"every_epochs": Positive},
        "checkpoint": {"every_s": Amount},
        "optim": {"lr": Amount},
    },
]
Model = Annotated[dict[str, Any], {"parameters": int}]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Message:
    """Base of events and commands: each subclass is a frozen dataclass with keyword arguments."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


class Event(Message):
    """Base of all events. A subclass gives the class variables below as arguments."""

    kind: ClassVar[str]  # name in the log
    durable: ClassVar[bool]  # the writer keeps it even when its queue is full
    same_length: ClassVar[tuple[str, ...]]  # lists of equal length; one that is empty by default may be empty

    def __init_subclass__(cls, *, kind: str, durable: bool = True, same_length: tuple[str, ...] = ()) -> None:
        super().__init_subclass__()
        cls.kind, cls.durable, cls.same_length = kind, durable, same_length

    def is_consistent(self) -> bool:
        """Whether the fields, each valid by itself, agree with each other."""
        return True


@dataclass(frozen=True, kw_only=True)
class Record:
    """An event with its place in the log."""

    seq: int  # rises by one from line to line, also across resumes
    time: UnixTime
    event: Event


def number(value: float | None) -> float:
    """A number from the log, with null read back as NaN."""
    return math.nan if value is None else float(value)
