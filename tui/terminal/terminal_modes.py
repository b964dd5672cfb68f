"""Terminal modes of a dashboard, each with its on and off sequence: one list for the driver and for a clean-up.

Sources: xterm's ctlseqs; https://sw.kovidgoyal.net/kitty/keyboard-protocol/.
"""

from __future__ import annotations

_KITTY_KEYS = f"\x1b[>{0b11001}u"  # disambiguate escape codes, report all keys as such, report associated text
_ON_AND_OFF = (
    ("\x1b[?1049h", "\x1b[?1049l"),  # the alternate screen; first on and last off, since it has kitty flags of its own
    ("\x1b[?25l", "\x1b[?25h"),  # no cursor
    ("\x1b[?1004h", "\x1b[?1004l"),  # reports of focus
    (_KITTY_KEYS, "\x1b[<u"),
    ("\x1b[?2004h", "\x1b[?2004l"),  # pastes in brackets
    ("\x1b[?7l", "\x1b[?7h"),  # no line wrap
)
_MOUSE_ON_AND_OFF = tuple((f"\x1b[?{mode}h", f"\x1b[?{mode}l") for mode in (1000, 1003, 1015, 1006))

_FRAME_END = "\x1b[?2026l"  # end of an open frame: what follows is shown at once


def switched_on(*, mouse: bool, kitty_keys: bool = True) -> str:
    """Sequence that takes a terminal over, with reports of the mouse and with kitty's keyboard protocol if wanted."""
    modes = [on for on, _ in _ON_AND_OFF if kitty_keys or on != _KITTY_KEYS]
    return "".join([*modes, *(on for on, _ in _MOUSE_ON_AND_OFF if mouse)])


SWITCHED_OFF = _FRAME_END + "".join(off for _, off in reversed((*_ON_AND_OFF, *_MOUSE_ON_AND_OFF)))
"""Sequence that gives the terminal back while its alternate screen is shown."""

RESTORED = _ON_AND_OFF[0][0] + SWITCHED_OFF + "\x1b[0m"
"""Sequence for either screen. Kitty flags are removed from the alternate screen only: those of the main one are the shell's."""
