"""Input from a terminal without a key press, and random input of all kinds.

Sources: xterm's ctlseqs; https://sw.kovidgoyal.net/kitty/keyboard-protocol/; https://vt100.net/docs/vt510-rm.
"""

from __future__ import annotations

import random
import re
import signal
import termios
from collections.abc import Iterator

from tests.support.pseudo_terminal import PseudoTerminal

ANSWERS = (
    b"\x1b[?62;22c", b"\x1b[>0;276;0c", b"\x1b[=1;2c",  # DA1, DA2, DA3
    b"\x1bP>|XTerm(370)\x1b\\", b"\x1bP>|tmux 3.4\x1b\\", b"\x1bP1$r0m\x1b\\",
    b"\x1bP1+r544e=787465726d\x1b\\", b"\x1bP!|0\x1b\\",
    b"\x1b]11;rgb:1c1c/1c1c/1c1c\x1b\\", b"\x1b]10;rgb:ffff/ffff/ffff\x07",
    b"\x1b]4;1;rgb:cd00/0000/0000\x07", b"\x1b]52;c;cXVpdA==\x07",
    b"\x1b[?997;1n", b"\x1b[0n", b"\x1b[12;40R", b"\x1b[?12;40;1R",  # DSR, cursor position
    b"\x1b[?2004;1$y", b"\x1b[4;2$y", b"\x1b[?25u", b"\x1b[?0u", b"\x1b[?2;0;1024;768S",  # modes, kitty flags, graphics
    b"\x1b[8;32;110t", b"\x1b[4;640;1100t", b"\x1b[48;32;110;0;0t", b"\x1b]lq title\x1b\\", b"\x1b[1;1w",
    b"\x1b_Gi=31;OK\x1b\\", b"\x1b^pq\x1b\\", b"\x1bXqc\x1b\\",  # APC, PM, SOS
    b"\x1b[M qq", b"\x1b[M\xff\xe9\xc3", b"\x1b[32;10;20M",  # mouse reports that were not asked for
    b"\x1b[97;1:3u", b"\x1b[1114112;1u", b"\x1b[55296u", b"\x1b[57500u", b"\x1b[1;5u", b"\x1b[97;999u", b"\x1b[1;1:3A",
    b"\x1b[99~", b"\x1b[112;5~", b"\x1b[99Q", b"\x1b[27;5;1114112~", b"\x1b[201~", b"\x1b[" + b"1;" * 90 + b"u",
    b"\xc2\x9b?62;22c", b"\x9b?62;22c", b"\xc2\x9d11;rgb:1c1c/1c1c/1c1c\xc2\x9c", b"\x90>|tmux 3.4\x9c",  # in 8 bits
    b"\x1b\x1b[A", b"\x1b\x1bOB",  # alt and an arrow, as rxvt sends it
)  # fmt: skip
"""Answers of terminals and other input that is not a key."""

_KEYS = [
    b"q", b"p", b"\x1b", b"\r", b"\t", b"\x1b[A", b"\x1bOB", b"\x1b[1;5C", b"\x7f", b"\x10", b"m", b"?", b"r", b"l", b"n",
    b"1", b"w", b"5",
]  # fmt: skip
_SIZES = [(120, 40), (80, 24), (40, 12), (25, 8), (200, 60), (100, 30)]
_FAILED = re.compile(rb"Traceback \(most recent|the dashboard failed|start screen failed")
_SIGNALLED = (-signal.SIGINT, -signal.SIGQUIT, 128 + signal.SIGINT, 128 + signal.SIGQUIT)


def _was_left(terminal: PseudoTerminal) -> bool:
    return terminal.raw.rfind(b"\x1b[?1049l") > terminal.raw.rfind(b"\x1b[?1049h")


def unpressed(draw: random.Random) -> list[bytes]:
    """Input without a key press, whole or cut in two: an answer, a paste, two answers, a sequence that breaks off."""
    kind = draw.randrange(4)
    if kind == 0:
        whole = draw.choice(ANSWERS)
    elif kind == 1:
        inside = bytes(draw.choice(b"qcex\x1b[0;m\x03\r d1\xc3\xff") for _ in range(draw.randrange(60)))
        whole = b"\x1b[200~" + inside.replace(b"\x1b[201~", b"") + b"\x1b[201~"
    elif kind == 2:
        whole = draw.choice(ANSWERS) + draw.choice(ANSWERS)
    else:
        answer = draw.choice(ANSWERS)
        whole = answer[: draw.randrange(2, len(answer))] + draw.choice(ANSWERS)
    cut = draw.randrange(2, len(whole))
    return [whole] if draw.random() < 0.5 else [whole[:cut], whole[cut:]]


def anything(draw: random.Random) -> bytes:
    """Random input: bytes, keys, answers, beginnings of sequences and of pastes."""
    kind = draw.randrange(6)
    if kind == 0:
        return bytes(draw.randrange(256) for _ in range(draw.randrange(1, 40)))
    if kind == 1:
        return b"".join(draw.choice(_KEYS) for _ in range(draw.randrange(1, 8)))
    if kind == 2:
        return b"\x1b[" + bytes(draw.choice(b"0123456789;:<>?=u~AMm$ R") for _ in range(draw.randrange(1, 20)))
    if kind == 3:
        return b"\x1b[200~" + bytes(draw.randrange(256) for _ in range(draw.randrange(80)))
    return b"".join(unpressed(draw))


def changes_unpressed(terminal: PseudoTerminal, draw: random.Random, rounds: int) -> Iterator[str]:
    """Send input without a key press to an idle screen; yields a message for each piece that has changed it."""
    for _ in range(rounds):
        terminal.quiet()
        before = terminal.text
        pieces = unpressed(draw)
        for piece in pieces:
            terminal.send_bytes(piece)
            terminal.pump(draw.choice((0.0, 0.05)))
        terminal.quiet()
        if terminal.text != before:
            yield f"{pieces!r} has changed the screen"


def survive(terminal: PseudoTerminal, draw: random.Random, rounds: int) -> str:
    """Send random input and resizes, by which the program may end, but not fail; returns the failure, or an empty text."""
    sent: list[bytes] = []
    for _ in range(rounds):
        if not terminal.alive() or _was_left(terminal):
            break
        if draw.random() < 0.1:
            terminal.resize(*draw.choice(_SIZES))
        sent.append(anything(draw))
        try:
            terminal.send_bytes(sent[-1])
        except OSError:
            break  # the program has ended
        terminal.pump(0.02)
    for _ in range(40):  # read its last output, whether it is ending or not
        if not terminal.pump(0.05) and not terminal.alive():
            break
    failed = _FAILED.search(bytes(terminal.raw))
    # Once the terminal is restored, keys make signals again: pending input may interrupt the exiting program, and the kernel
    # then drops its unread output.
    fine = (0, *(_SIGNALLED if terminal.modes() & termios.ISIG else ()))
    if failed or (not terminal.alive() and terminal.status not in fine):
        return f"exit code {terminal.status}, {failed.group() if failed else b'no word'!r} after {sent[-6:]!r}\n{terminal.text}"
    return ""
