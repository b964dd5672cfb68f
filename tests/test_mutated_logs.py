"""Damaged lines of a log stop no reader and hide no other line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from tests.support.mutated_logs import START, history, lines, mutated, read_everywhere, write
from trainer.run.log.codec import checks_of, decode, event_kinds
from trainer.run.log.log_types import Positive, Range, Share, check_of
from trainer.run.log.reader import LogReader
from trainer.run.log.run_events import Warned
from trainer.run.log.writer import EventLog
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from tui.commands.runs import print_runs
from tui.commands.show import print_csv, print_json, print_report

GOOD = lines()


def line_of(kind: str, **changes: Any) -> bytes:
    """The first line of a kind, with other values."""
    first = next(content for line in GOOD if (content := json.loads(line))["kind"] == kind)
    return orjson.dumps(first | changes) + b"\n"


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_every_reader_reads_every_damaged_log(tmp_path: Path, first: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The same with 2,000 logs: `python -m benchmarks.mutated_logs`."""
    assert read_everywhere(write(tmp_path / "good", GOOD)) == 0
    skipped = [read_everywhere(write(tmp_path / f"odd-{seed}", mutated(seed))) for seed in range(first, first + 20)]
    assert sum(map(bool, skipped)) > 10
    assert print_runs(tmp_path) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"good", *(f"odd-{seed}" for seed in range(first, first + 20))} <= set(listed)


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("evaluation", {"accuracy": None}), ("evaluation", {"accuracy": 1.5}), ("evaluation", {"counts": [10]}),
    ("evaluation", {"correct": [999] * 5}), ("evaluation", {"confusions": [[9, 1], [], [], [], []]}),
    ("evaluation", {"split": "odd"}), ("evaluation", {"epoch": -1.0}), ("evaluation", {"epoch": "1"}),
    ("evaluation", {"confusions": [[1], [], [], [], []]}), ("evaluation", {"time": 1e18}), ("evaluation", {"time": None}),
    ("evaluation", {"time": -1}), ("evaluation", {"seq": 2**60}), ("evaluation", {"seq": True}), ("evaluation", {"seq": 4.0}),
    ("started", {"steps_per_epoch": 0}), ("started", {"classes": None}), ("started", {"classes": ["a", 5]}),
    ("started", {"planned_lr": [[1.0], [0.1, 0.2]]}), ("started", {"planned_lr": []}), ("started", {"total_steps": 1e3}),
    ("started", {"model": {"parameters": "many"}}), ("started", {"splits": {"train": None}}),
    ("opened", {"config": None}), ("opened", {"config": {"data": None}}), ("opened", {"config": {"data": {"image_size": 0}}}),
    ("opened", {"config": {"data": {"progressive": [[8]]}}}), ("opened", {"resume": 1}), ("opened", {"run": None}),
    ("state", {"state": "levitating"}), ("state", {"state": 7}), ("epoch", {"seconds": -1.0}), ("epoch", {"step": -1}),
    ("steps", {"steps": [1, [1.0], [0.5], [0.1, 0.1], 8, 1.0]}), ("steps", {"steps": [1, [], [], [], 8, 1.0]}),
    ("steps", {"steps": [0, [1.0], [0.5], [0.1], 8, 1.0]}), ("steps", {"steps": [1, [True], [0.5], [0.1], 8, 1.0]}),
    ("steps", {"steps": [1, [1.0], [0.5], [0.1], 8]}), ("steps", {"steps": [1, [1.0], [0.5], [None], 8, 1.0]}),
    ("steps", {"steps": 5}), ("steps", {"budget": {"data": "long"}}), ("monitor", {"readings": [1]}),
    ("monitor", {"readings": {"cpu_pct": None}}), ("layers", {"names": ["conv1"]}), ("layers", {"weights": None}),
    ("lr_range", {"losses": []}), ("resumed", {"lr_edits": [[1, 2, 3]]}), ("note", {"text": 5}), ("failed", {"error": None}),
    ("settings", {"epochs": 0}), ("settings", {"config": {"train": 3}}), ("pictures", {"images": -4}), ("gap", {"time": "now"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "changes"), WRONG, ids=lambda value: value if isinstance(value, str) else str(value)[:40]
)
def test_every_reader_skips_and_counts_a_line_with_a_wrong_value(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    line = line_of(kind, **({"seq": 899} | changes))
    assert decode(line_of(kind)) is not None
    assert decode(line) is None
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join([GOOD[0], line, line_of("steps", seq=900), line, line_of("steps", seq=901)]))
    follower, view = LogReader(path), RunView()
    assert len(list(follower.records())) == 3
    assert follower.bad_lines == 2
    replay(view, path.read_bytes().splitlines(keepends=True))
    assert view.bad_records >= 1
    assert view.seq == 901


def test_every_kind_of_event_is_read_back_and_has_checks() -> None:
    records = [record for line in GOOD if (record := decode(line)) is not None]
    assert [record.event for record in records] == [json_of(event) for event in history()]
    kinds = {record.event.kind for record in records}
    assert kinds == set(event_kinds()) - {"log_failed"}
    classes: list[Any] = list(event_kinds().values())
    assert all(checks_of(cls) or cls.kind == "heartbeat" for cls in classes)


def json_of(event: Any) -> Any:
    """An event as it is read back: NaN becomes None."""
    changes = {
        name: [None if isinstance(item, float) and math.isnan(item) else item for item in value]
        for name, value in vars(event).items()
        if isinstance(value, list)
    }
    return type(event)(**(vars(event) | changes))


def test_readers_report_skipped_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path / "odd", [*GOOD, b'{"torn\n', line_of("evaluation", accuracy=None, seq=5000)])
    for reader in (print_report, print_json, print_csv):
        reader(run)
    printed = capsys.readouterr()
    assert "look at      2 lines of the log skipped: damaged" in printed.out
    assert '"bad_records": 2' in printed.out
    assert printed.err == "2 lines of the log skipped\n"
    print_runs(tmp_path)
    listed = capsys.readouterr().out
    assert "stopped !" in listed
    assert "odd: 2 lines of the log skipped" in listed


def test_lines_of_later_versions_are_not_called_damaged(tmp_path: Path) -> None:
    run = write(
        tmp_path / "new", [*GOOD, b'{"seq":900,"time":1,"kind":"hologram"}\n', line_of("gap", later=[None], seq=901)]
    )
    assert read_everywhere(run) == 0


def test_a_reopened_log_numbers_lines_after_the_last_valid_number(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join([*GOOD[:3], *(line_of("gap", seq=seq) for seq in (2**63, True, "7", None, -5, 1e9))]))
    log = EventLog(path, clock=lambda: START)
    assert log.publish(Warned(message="after")).seq == 3
    log.close()
    assert decode(path.read_bytes().splitlines()[-1]) is not None


class _Group(TypedDict, total=False):
    size: int


PLAIN: list[Any] = [
    int, float, str, bool, Any, list[float], list[float | None], list[list[int]], dict[str, int], dict[str, dict[str, Any]],
    int | None, str | None, list[dict[str, float]], {"size": int}, Annotated[dict[str, Any], {"size": int}],
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**53) | st.floats(-1e30, 1e30) | st.sampled_from(["", "size", "odd"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["size", "a"]), inner, max_size=2),
    max_leaves=6,
)


@given(value=JSON, declared=st.sampled_from(PLAIN))
def test_a_check_agrees_with_pydantic(value: Any, declared: Any) -> None:
    wanted = _Group if declared in PLAIN[-2:] else declared
    assert check_of(declared)([value]) is _pydantic_accepts(wanted, value)


@given(value=st.integers(-3, 3) | st.floats(-3, 3) | st.booleans(), low=st.integers(-2, 0), high=st.integers(0, 2))
def test_a_range_agrees_with_pydantic(value: Any, low: int, high: int) -> None:
    ours = check_of(Annotated[float, Range(low, high)])([value])
    assert ours is _pydantic_accepts(Annotated[float, Field(ge=low, le=high)], value)


@given(values=st.lists(JSON, max_size=4), declared=st.sampled_from([*PLAIN, Positive, Share]))
def test_values_pass_together_when_each_passes_alone(values: list[Any], declared: Any) -> None:
    check = check_of(declared)
    assert check(values) is all(check([value]) for value in values)


def _pydantic_accepts(declared: Any, value: Any) -> bool:
    """Whether pydantic accepts a value unconverted; a bool is no number, though pydantic's float accepts one."""
    try:
        TypeAdapter(declared).validate_python(value, strict=True)
    except ValidationError:
        return False
    return not (isinstance(value, bool) and declared not in (bool, Any))
