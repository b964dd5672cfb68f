"""Lines folded in blocks give the same view as one by one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.canned import evaluated, opened, started, steps
from trainer.run.log.codec import encode, parse_lines, read_lines
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import Steps
from trainer.run.log.run_events import Gap, Heartbeat, LrEdited, Monitored, Resumed
from trainer.run.view import replay as replay_module
from trainer.run.view.fold import apply
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView

START = encode(Record(seq=0, time=1.0, event=opened())), encode(Record(seq=1, time=2.0, event=started()))


def one_by_one(lines: list[bytes]) -> RunView:
    view = RunView()
    for line in lines:
        records, bad = read_lines([line])
        for record in records:
            apply(view, record)
        content = parse_lines([line])
        view.bad_records += bad and not view.has_passed(content[0].get("seq") if content else None)
    return view


def at_once(lines: list[bytes], pieces: int = 1) -> RunView:
    view = RunView()
    size = max(-(-len(lines) // pieces), 1)
    for begin in range(0, len(lines), size):
        replay(view, lines[begin : begin + size])
    return view


def lines_of(*events: Event, first: int = 2) -> list[bytes]:
    return [encode(Record(seq=seq, time=10.0 + seq, event=event)) for seq, event in enumerate(events, first)]


LOSSES = st.lists(st.floats(0, 10) | st.just(float("nan")), min_size=0, max_size=3)


@st.composite
def logged(draw: st.DrawFn) -> list[Event]:
    """Events of a run: mostly steps, sometimes skipped, rolled back, or with other events between them."""
    events: list[Event] = []
    step = 0
    for kind in draw(st.lists(st.sampled_from("ssssssssmhkelrg"), max_size=40)):
        if kind in "sk":
            losses = draw(LOSSES)
            skipped = [step + 1] if kind == "k" and losses else []
            events.append(Steps(
                first_step=step + 1, loss=list(losses), accuracy=[0.5] * len(losses), lr=[0.1] * len(losses), images=8,
                seconds=draw(st.sampled_from([0.1, 9.0, 40.0])), budget=draw(st.sampled_from([{}, {"data": float(step)}])),
                skipped=skipped,
            ))  # fmt: skip
            step += len(losses)
        elif kind == "r":
            step = draw(st.integers(0, step))
            events.append(Resumed(step=step, epoch=1, checkpoint="c"))
        else:
            events.append({
                "m": Monitored(readings={"process_bytes": float(step)}), "h": Heartbeat(), "e": evaluated(1),
                "l": LrEdited(step=step, factor=0.5, lr=0.1), "g": Gap(dropped_events=2),
            }[kind])  # fmt: skip
    return events


STEP = b'{"seq":9,"time":1,"kind":"steps","steps":%b}\n'
DAMAGE = [
    b"", b"\n", b'{"seq":3,"ti', b"[]\n", b'"steps"\n', b'{"kind":"steps"}\n', b'{"seq":"x","time":1,"kind":"heartbeat"}\n',
    STEP % b"7", STEP % b"[1,[1],[1],[1,2],3,1]", STEP % b'[1,["a"],[1],[1],3,1]', STEP % b"[1e300,[1],[1],[1],3,1]",
    STEP % b"[1,[],[],[],3,1]", STEP % b"[1,[1],[1],[1],null,1]", STEP % b"[1,[1],[1],[1],3,1,5]",
    STEP.replace(b'"time":1', b'"time":null') % b"[1,[1],[1],[1],3,1]",
    STEP.replace(b'"steps",', b'["steps"],') % b"[1,[1],[1],[1],3,1]",
    b'{"seq":12,"time":1,"kind":"monitor","readings":null}\n',
]  # fmt: skip


@given(events=logged(), pieces=st.integers(1, 5))
def test_lines_folded_in_blocks_give_the_view_of_single_lines(events: list[Event], pieces: int) -> None:
    lines = [*START, *lines_of(*events)]
    assert at_once(lines, pieces) == one_by_one(lines)


HEADS: list[dict[str, Any]] = [
    {"config": None}, {"config": {"data": None}}, {"config": {"data": {"progressive": 5}}}, {"total_steps": None},
    {"config": {"data": {"progressive": [[8]]}}}, {"config": {"data": {"progressive": [[8, 1, 2]]}}}, {"steps_per_epoch": "x"},
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_a_damaged_head_does_not_stop_a_replay(head: dict[str, Any]) -> None:
    lines = [orjson.dumps(orjson.loads(line) | head) for line in START] + lines_of(*(steps(n, 1) for n in range(1, 9)))
    assert at_once(lines) == one_by_one(lines)


@given(events=logged(), damage=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(DAMAGE)), max_size=5))
def test_damaged_and_repeated_lines_change_nothing_else(events: list[Event], damage: list[tuple[int, bytes]]) -> None:
    lines = [*START, *lines_of(*events)]
    for place, line in damage:
        lines.insert(place, line)
    lines += lines[len(lines) // 2 :]
    assert at_once(lines) == one_by_one(lines)


@given(events=logged(), cuts=st.tuples(st.integers(0, 45), st.integers(0, 45)))
def test_lines_in_overlapping_blocks_count_once(events: list[Event], cuts: tuple[int, int]) -> None:
    readable = [event for event in events if not isinstance(event, Steps) or event.loss]
    lines, (begin, end) = [*START, *lines_of(*readable)], sorted(cuts)
    view = RunView()
    replay(view, lines[:end])
    replay(view, lines[begin:])
    assert view == one_by_one(lines)


@pytest.mark.parametrize("end", [4, 7])
@pytest.mark.parametrize("begin", [3, 2, 0])
def test_steps_in_overlapping_blocks_are_folded_once_and_in_order(begin: int, end: int) -> None:
    lines = [*START, *lines_of(*(steps(first, 2) for first in range(1, 13, 2)))]
    view = RunView()
    replay(view, lines[:end])
    replay(view, lines[begin:])
    assert (view.step, view.seq) == (12, 7)
    assert list(view.train_loss.x) == list(view.lr.x) == list(range(1, 13))


def test_a_long_history_is_folded_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests would also pass if `replay` folded lines one by one."""
    seen = []
    monkeypatch.setattr(replay_module, "apply_steps", lambda view, columns, time: seen.append(len(columns.groups)))
    history = [event for step in range(1, 101) for event in (steps(step, 1), Heartbeat())]
    replay(RunView(), [*START, *lines_of(*history, evaluated(1), steps(101), steps(201))])
    assert seen == [100, 2]


def test_steps_of_log_version_1_are_read() -> None:
    numbers = {
        "first_step": 1, "loss": [1.5, None], "accuracy": [0.5, 0.25], "lr": [0.1, 0.1], "images": 16, "seconds": 1.0,
    }  # fmt: skip
    line = {"seq": 2, "time": 3.0, "kind": "steps", "budget": {}, "skipped": []} | numbers
    view = at_once([*START, orjson.dumps(line), orjson.dumps(line | {"seq": 3, "first_step": 3})])
    assert (view.step, view.nonfinite_steps, view.seq) == (4, 2, 3)
    assert list(view.train_accuracy.y) == [0.5, 0.25, 0.5, 0.25]
