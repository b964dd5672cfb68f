"""Input from a terminal: keys are recognised, and nothing else is taken for a key, however it is split or damaged."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import events, messages
from textual.message import Message

from tests.support.terminal_input import ANSWERS
from tui.terminal.key_input import ESCAPE_S, LONGEST_PASTE, PASTE_S, REST_S, KeyInput

KEYS = {
    b"q": ["q"], b"\x1b[A": ["up"], b"\x1bOA": ["up"], b"\x1bOP": ["f1"], b"\x1b[[A": ["f1"], b"\x1b[3~": ["delete"],
    b"\x1b[3$": ["shift+delete"], b"\x1b[Z": ["shift+tab"], b"\x1b[1;5C": ["ctrl+right"], b"\x1bq": ["alt+q"],
    b"\x03": ["ctrl+c"],
    b"\x1b[99;5u": ["ctrl+c"], b"\x1b[27;5;99~": ["ctrl+c"], b"\x1b[97:65;2;65u": ["A"], b"\x1b[97;1:2u": ["a"],
    b"\x1b[1;1:1A": ["up"],
    b"\x1b[13u": ["enter"], b"\x1b[27u": ["escape"], b"\xc3\xa9": ["é"], "🫨".encode(): ["🫨"], b"\x1b[233;1;233u": ["é"],
    b"\x1b[0;;20013u": ["中"], b"\x1b[0;1;25991:23383u": ["文", "字"], "✛".encode(): ["open_centre_cross"],
    "°§".encode(): ["degree_sign", "section_sign"],
    b"\r": ["enter"], b"\t": ["tab"], b"\x7f123": ["backspace", "1", "2", "3"],
}  # fmt: skip
"""Input bytes and their keys."""


def keys_of(received: list[Message]) -> list[str]:
    return [message.key for message in received if isinstance(message, events.Key)]


def feed(*pieces: bytes, apart_s: float = 0.0) -> list[Message]:
    """The messages for pieces of input, and for the time after them."""
    keys, received, now = KeyInput(), [], 0.0
    for piece in pieces:
        received += keys.feed(piece, now)
        now += apart_s
        received += keys.tick(now)
    return received + keys.tick(now + PASTE_S)


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_of_a_terminal_are_not_keys_however_they_are_split(answer: bytes) -> None:
    assert keys_of(feed(answer, b"q")) == ["q"]
    for cut in range(1, len(answer)):
        if answer.startswith(b"\x1b\x1b"):
            continue  # in two pieces it is an escape and an arrow
        escape = ["escape"] if answer[:cut] == b"\x1b" else []
        assert keys_of(feed(answer[:cut], answer[cut:])) == []
        assert keys_of(feed(answer[:cut])) == escape
        assert keys_of(feed(answer[:cut], answer[cut:], apart_s=2 * ESCAPE_S)) == escape, "the rest comes late"
        assert keys_of(feed(answer[:1], answer[1:cut], answer[cut:], apart_s=2 * ESCAPE_S))[1:] == [], "in three pieces"
    if not answer.startswith(b"\x1b\x1b"):
        assert keys_of(feed(*(bytes([byte]) for byte in answer))) == []


@pytest.mark.parametrize(("typed", "keys"), KEYS.items())
def test_keys_are_recognised_however_they_are_split_and_after_any_answer(typed: bytes, keys: list[str]) -> None:
    assert keys_of(feed(typed)) == keys
    for cut in range(1, len(typed)):
        assert keys_of(feed(typed[:cut], typed[cut:])) == keys
    for answer in ANSWERS:
        assert keys_of(feed(answer + typed)) == keys


@pytest.mark.parametrize("answer", ANSWERS)
def test_ctrl_c_acts_within_any_unfinished_sequence(answer: bytes) -> None:
    for begun in (answer[:cut] for cut in range(1, len(answer) + 1)):
        assert keys_of(feed(begun, b"\x03"))[-1:] == ["ctrl+c"]
        assert keys_of(feed(begun, b"\x1b[99;5u"))[-1:] == ["ctrl+c"]


@given(
    pasted=st.binary(max_size=200), cuts=st.lists(st.integers(0, 220), max_size=4), apart_s=st.sampled_from([0.0, 0.5])
)
@settings(max_examples=300, deadline=None)
def test_nothing_in_a_paste_is_a_key(pasted: bytes, cuts: list[int], apart_s: float) -> None:
    pasted = pasted.replace(b"\x1b[201~", b"")
    whole = b"\x1b[200~" + pasted + b"\x1b[201~"
    edges = sorted({0, len(whole), *(min(max(cut, 6), len(whole)) for cut in cuts)})
    pieces = [whole[a:b] for a, b in pairwise(edges)]
    if not any(piece == b"\x03" for piece in pieces):
        assert keys_of(feed(*pieces, b"q", apart_s=apart_s)) == ["q"]


PASTED = {
    b"\x1b[31mgrep\x1b[m\x1b[K: qq": "grep: qq", b"qqc": "qqc", b"\x00\x08q\xc2\x9b": "q", b"a\tb\nc": "a\tb\nc",
    "é🫨".encode(): "é🫨", b"\xff": "\ufffd",
}  # fmt: skip


@pytest.mark.parametrize(("pasted", "text"), PASTED.items())
def test_a_paste_is_its_text_without_codes(pasted: bytes, text: str) -> None:
    received = feed(b"\x1b[200~" + pasted + b"\x1b[201~")
    assert [event.text for event in received if isinstance(event, events.Paste)] == [text]


def test_a_paste_without_end_times_out_and_ctrl_c_ends_it_at_once() -> None:
    keys = KeyInput()
    assert keys.feed(b"\x1b[200~some text q", 0.0) == []
    assert keys_of(keys.feed(b"q", PASTE_S - 0.1)) == [], "this key is lost"
    over = keys.tick(PASTE_S)
    assert [type(event) for event in over] == [events.Paste]
    assert keys_of(keys.feed(b"q", PASTE_S + 0.1)) == ["q"]
    keys.feed(b"\x1b[200~more text", 10.0)
    assert keys_of(keys.feed(b"\x03", 10.1)) == ["ctrl+c"]
    assert keys_of(keys.feed(b"q", 10.2)) == ["q"]
    assert keys_of(feed(b"\x1b[200~abc\x03")) == ["ctrl+c"], "in one piece with the text"


@pytest.mark.parametrize("ctrl_c", [b"\x03", b"\x1b[99;5u", b"\x1b[99;133u", b"\x1b[99;69u", b"\x1b[27;5;99~"])
def test_keys_pressed_in_a_paste_without_end_do_not_prolong_it(ctrl_c: bytes) -> None:
    """In kitty's protocol each key is a sequence, with its lock keys; mouse movements are sequences, too."""
    keys = KeyInput()
    keys.feed(b"\x1b[200~some text", 0.0)
    for tenth in range(1, 20):
        keys.feed(b"\x1b[113;129;113u" if tenth % 2 else b"\x1b[<35;10;10M", tenth / 10)
    assert [type(event) for event in keys.tick(PASTE_S)] == [events.Paste]
    keys.feed(b"\x1b[200~some text", 5.0)
    assert keys_of(keys.feed(ctrl_c, 5.1)) == ["ctrl+c"]


@pytest.mark.parametrize("begun", [b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b^", b"\x1bX"])
def test_keys_after_alt_and_a_bracket_are_lost_only_briefly(begun: bytes) -> None:
    keys, typed = KeyInput(), []
    keys.feed(begun, 0.0)
    for tenth in range(1, 15):
        typed += keys_of(keys.tick(tenth / 10)) + keys_of(keys.feed(b"q", tenth / 10))
    assert typed == ["q"] * 5


def test_a_paste_is_truncated() -> None:
    (paste,) = (
        event
        for event in feed(b"\x1b[200~", b"x" * (LONGEST_PASTE + 9), b"\x1b[201~")
        if isinstance(event, events.Paste)
    )
    assert len(paste.text) == LONGEST_PASTE


@given(st.binary(max_size=300), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([0.0, 0.05, 1.5]))
@settings(max_examples=500, deadline=None)
def test_random_bytes_raise_nothing_and_leave_the_keyboard_working(
    data: bytes, sizes: list[int], apart_s: float
) -> None:
    keys, now, at, turn = KeyInput(), 0.0, 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        keys.feed(data[at : at + size], now)
        keys.tick(now)
        at, turn, now = at + size, turn + 1, now + apart_s
    assert keys_of(keys.feed(b"\x03", now))[-1:] == ["ctrl+c"]
    keys.tick(now + PASTE_S)
    assert keys_of(keys.feed(b"q", now + PASTE_S + REST_S)) == ["q"]


def test_focus_mouse_and_mode_reports_are_recognised() -> None:
    received = feed(b"\x1b[I\x1b[O\x1b[<0;5;7M\x1b[<0;5;7m\x1b[?2026;2$y")
    assert [type(event) for event in received] == [
        events.AppFocus, events.AppBlur, events.MouseDown, events.MouseUp, messages.TerminalSupportsSynchronizedOutput
    ]  # fmt: skip
    assert (received[2].x, received[2].y) == (4, 6)  # type: ignore[attr-defined]
