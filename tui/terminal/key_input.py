"""Cuts the terminal's input into whole sequences, and turns the known ones into Textual's events.

Textual's own parser passes on an unknown sequence as keys, letter by letter: a late answer of the terminal then saves or
evaluates, and a report that it cannot parse ends its thread. Here a sequence is complete by its grammar (ECMA-48, section 5.4;
xterm's ctlseqs; kitty's keyboard protocol), and an unknown one is dropped whole. Nothing within a paste is a key.
"""

from __future__ import annotations

import codecs
import re

from textual import events, messages
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual._keyboard_protocol import FUNCTIONAL_KEYS
from textual._xterm_parser import XTermParser
from textual.message import Message

ESCAPE_S = 0.03  # time after which a lone escape is the key; over a network a sequence mostly arrives in one piece
REST_S = 1.0  # longest wait for the rest of an incomplete sequence, which is then dropped
PASTE_S = 2.0  # time without text after which a paste whose end was lost is over; single keys do not prolong it
LONGEST_PASTE = 1 << 20  # maximum number of bytes kept of a paste

_ESC, _CTRL_C = b"\x1b", b"\x03"
_LONGEST_KEY = 64
_LONGEST_SEQUENCE = 4096

_SEQUENCE = re.compile(
    rb"\x1b\[M[\x20-\xff]{3}"  # a mouse report of old terminals
    rb"|\x1b\[\[[\x40-\x7e]"  # function keys of the Linux console
    rb"|\x1b\[(?:3|7|8|23|24)\$"  # rxvt's keys with shift
    rb"|\x1b\[(?!M|\[)[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]"  # CSI
    rb"|\x1bO[0-9;]*[\x40-\x7e]"  # SS3
)
_BEGUN = re.compile(rb"\x1b(?:\[M[\x20-\xff]{0,2}|\[\[|\[[\x30-\x3f]*[\x20-\x2f]*|O[0-9;]*)?")
"""The longest beginning of a sequence that may still become whole."""
_STRING = re.compile(rb"\x1b[P\]_^X]")  # DCS, OSC, APC, PM and SOS, whose text continues until a terminator
_STRING_END = re.compile(rb"[\x07\x18\x1a]|\x1b\\|(?:\xc2|(?<![\x80-\xff]))\x9c|(?=\x03)|(?=\x1b[^\\\x1b])")
"""BEL, CAN, SUB, ST; ctrl+c and another sequence end it, too."""
_PASTE_BEGIN, _PASTE_END = b"\x1b[200~", b"\x1b[201~"

_MOUSE = re.compile(r"\x1b\[<\d{1,4};-?\d{1,5};-?\d{1,5}[Mm]")
_SYNCHRONISED = re.compile(r"\x1b\[\?2026;[123]\$y")
_KEY = re.compile(r"\x1b\[(\d{0,7})(?::[\d:]*)?(?:;(\d{0,3})(?::(\d))?)?(?:;([\d:]*))?([u~ABCDEFHPQS])")
"""Code point or number, modifiers, event type, text; alternate keys are ignored."""
_MODIFIED = re.compile(r"\x1b\[27;(\d{1,3});(\d{1,7})~")  # xterm's modifyOtherKeys: modifiers and code point
_TEXT_ALONE = re.compile(r"\x1b\[0?(?:;1?(?::[12])?);([\d:]+)u")  # text without a key, as an input method sends it
_RELEASED = "3"
_ENCODED_CTRL_C = re.compile(rb"\x1b\[(?:99(?::[\d:]*)?;(?:5|69|133|197)(?::[12])?(?:;[\d:]*)?u|27;5;99~)")
"""In kitty's protocol, with and without caps lock and num lock; in xterm's modifyOtherKeys."""

_LATE_REST = (b"[", b"]", b"O", b"P", b"_", b"^", b"X")
_ALT_ARROW = re.compile(rb"\x1b(\x1b[\[O][A-D])")  # form of rxvt and PuTTY: not an escape and an arrow
_C1 = re.compile(rb"(?:\xc2|(?<![\x80-\xff]))([\x8f\x90\x98\x9b\x9d-\x9f])")
"""8-bit forms of `ESC [` and the like, in UTF-8 and alone; never a byte within another character."""
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class KeyInput:
    """Converts bytes to events. Reads no clock and no file; used by one thread."""

    def __init__(self) -> None:
        self.deadline: float | None = None  # time for the next `tick` on the caller's clock; None if nothing is pending
        self._keys = XTermParser()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._alt = False
        self._rest = b""
        self._in_string = False
        self._pasted: bytearray | None = None
        self._late_until = -1.0

    def feed(self, data: bytes, now: float) -> list[Message]:
        """Take the result of one read; a person's key arrives alone, a paste and an answer in larger pieces."""
        found: list[Message] = []
        if not data:
            return found
        if data == _CTRL_C or _ENCODED_CTRL_C.fullmatch(data):
            self._forget()
        elif now < self._late_until and data.startswith(_LATE_REST):
            data = _ESC + data  # the rest of a sequence whose escape was taken for a key
        self._late_until = -1.0
        unfinished = self._unfinished
        # A key that is pressed meanwhile is no reason to wait longer for the end.
        is_key = len(data) == 1 or _SEQUENCE.fullmatch(data) is not None
        rest = self._rest + data
        self._rest = b""
        while rest:
            rest = self._take(rest, found)
        if not (is_key and unfinished and self._unfinished):
            self.deadline = self._next_deadline(now)
        return found

    @property
    def _unfinished(self) -> bool:
        """Whether a paste or a string has begun and not ended."""
        return self._pasted is not None or self._in_string

    def tick(self, now: float) -> list[Message]:
        """Resolve what is pending, once its time is over."""
        if self.deadline is None or now < self.deadline:
            return []
        found: list[Message] = []
        if self._pasted is not None:
            interrupted = self._pasted.endswith(_CTRL_C)
            self._end_paste(found)
            found += [events.Key("ctrl+c", "\x03")] if interrupted else []
        elif self._rest == _ESC and not self._in_string:
            found.append(events.Key("escape", "\x1b"))
            self._late_until = now + REST_S
        self._forget()
        return found

    def _forget(self) -> None:
        self._rest, self._in_string, self._pasted, self._alt = b"", False, None, False
        self._decoder.reset()
        self.deadline = None

    def _next_deadline(self, now: float) -> float | None:
        if self._pasted is not None:
            return now + PASTE_S
        if self._in_string or len(self._rest) > 1:
            return now + REST_S
        return now + ESCAPE_S if self._rest else None

    def _take(self, data: bytes, found: list[Message]) -> bytes:
        """Take the first piece of some bytes; returns the rest."""
        if self._pasted is not None:
            return self._take_paste(data, self._pasted, found)
        if self._in_string:
            return self._take_string(data)
        if not data.startswith(_ESC):
            text, escape, rest = data.partition(_ESC)
            joined = self._decoder.getstate()[0] + text
            eight_bits = _C1.search(joined)
            if eight_bits is None:
                self._take_text(text, found)
                return escape + rest
            self._decoder.reset()
            self._take_text(joined[: eight_bits.start()], found)
            return bytes((_ESC[0], eight_bits[1][0] - 0x40)) + joined[eight_bits.end() :] + escape + rest
        self._decoder.reset()  # a character that was cut by an escape
        self._alt = False
        if alt_arrow := _ALT_ARROW.match(data):
            return data[alt_arrow.end() :]
        if whole := _SEQUENCE.match(data):
            self._take_sequence(whole.group(), found)
            return data[whole.end() :]
        if _STRING.match(data):
            self._in_string = True
            return data[2:]
        begun = _BEGUN.match(data)
        assert begun is not None, "it begins with an escape"
        if begun.end() == len(data) and len(data) < _LONGEST_SEQUENCE:
            self._rest = data
            return b""
        if begun.end() > 1:
            return data[begun.end() :]  # broken off: by ctrl+c, by another sequence, or without an end
        if data.startswith(_ESC * 2):
            found.append(events.Key("escape", "\x1b"))
        else:
            self._alt = True
        return data[1:]

    def _take_string(self, data: bytes) -> bytes:
        end = _STRING_END.search(data)
        if end is None:
            self._rest = _ESC if data.endswith(_ESC) else b""
            return b""
        self._in_string = False
        return data[end.end() :]

    def _take_paste(self, data: bytes, pasted: bytearray, found: list[Message]) -> bytes:
        text, end, rest = data.partition(_PASTE_END)
        if not end:
            # A possible beginning of the end marker waits for its rest.
            held = next((n for n in range(len(_PASTE_END) - 1, 0, -1) if text.endswith(_PASTE_END[:n])), 0)
            self._rest = text[len(text) - held :]
            text = text[: len(text) - held]
        pasted += text[: LONGEST_PASTE - len(pasted)]
        if end:
            self._end_paste(found)
        return rest

    def _end_paste(self, found: list[Message]) -> None:
        pasted, self._pasted = bytes(self._pasted or b""), None
        text = _CONTROLS.sub("", pasted.decode("utf-8", "replace"))
        if text:
            found.append(events.Paste(text))

    def _take_text(self, data: bytes, found: list[Message]) -> None:
        """Turn characters into keys, except those that no keyboard has: bytes that are not UTF-8, and C1 controls."""
        for character in self._decoder.decode(data):
            alt, self._alt = self._alt, False
            if character == "\ufffd" or "\x80" <= character <= "\x9f":
                continue
            known = "\x1b" + character
            sequence = known if alt and known in ANSI_SEQUENCES_KEYS else character
            found += self._keys._sequence_to_key_events(sequence, alt=alt)

    def _take_sequence(self, data: bytes, found: list[Message]) -> None:
        """Turn a known whole sequence into its event; drop all others."""
        if data == _PASTE_BEGIN:
            self._pasted = bytearray()
            return
        if len(data) > _LONGEST_KEY:
            return
        sequence = data.decode("latin-1")
        if data in (b"\x1b[I", b"\x1b[O"):
            found.append(events.AppFocus() if data == b"\x1b[I" else events.AppBlur())
        elif _MOUSE.fullmatch(sequence):
            mouse = self._keys.parse_mouse_code(sequence)
            found += [mouse] if mouse is not None else []
        elif _SYNCHRONISED.fullmatch(sequence):
            found.append(messages.TerminalSupportsSynchronizedOutput())
        elif typed := _TEXT_ALONE.fullmatch(sequence):
            self._take_text("".join(map(chr, _typed_points(typed[1]))).encode(), found)
        elif key := _readable_key(sequence):
            found += [event for event in self._keys._sequence_to_key_events(key) if event.key != "<ignore>"]


def _readable_key(sequence: str) -> str:
    """A key's sequence in a form that Textual reads; empty for anything else, and for the release of a key."""
    if other := _MODIFIED.fullmatch(sequence):
        sequence = f"\x1b[{other.group(2)};{other.group(1)}u"
    match = _KEY.fullmatch(sequence)
    if match is None:
        return sequence if sequence in ANSI_SEQUENCES_KEYS and not sequence.endswith("R") else ""
    number, modifiers, event_type, text, end = match.groups(default="")
    name = f"{number or 1}{end}"
    if event_type == _RELEASED or not 0 <= int(modifiers or 1) - 1 < 256:
        return ""
    if name not in FUNCTIONAL_KEYS and not (end == "u" and _is_typed(int(number or 0))):
        return ""
    typed = ":".join(map(str, _typed_points(text)))
    return f"\x1b[{number};{modifiers};{typed}{end}"


def _typed_points(text: str) -> list[int]:
    """Code points of kitty's associated text."""
    return [int(point) for point in text.split(":") if 0 < len(point) < 8 and _is_typed(int(point))]


def _is_typed(point: int) -> bool:
    """Whether a code point is a character that a keyboard types: no control, surrogate, private use or beyond Unicode."""
    controls, surrogates, private = point < 32 or 127 <= point < 160, 0xD800 <= point < 0xE000, 0xE000 <= point < 0xF900
    return not (controls or surrogates or private or point > 0x10FFFF)
