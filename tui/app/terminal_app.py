"""The base of all applications: driver, themes, keys that act one after another, and an end that is never silent."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from rich.console import RenderableType
from textual import events
from textual.app import App, ReturnType
from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.command import CommandPalette
from textual.css.query import NoMatches
from textual.errors import NoWidget
from textual.message_pump import MessagePump
from textual.theme import ThemeProvider
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import WorkerFailed

from tui.drawing.themes import THEMES, colours_beside, no_color, theme_for
from tui.terminal.textual_driver import TerminalDriver

INTERRUPT = Binding("ctrl+c,ctrl+q", "interrupt", "leave", show=False, priority=True)
"""Acts on every screen, also where a text is typed."""

_KEY_S = 0.25
"""Longest time that a key keeps the next one waiting."""
_INTERRUPT_KEYS = ("ctrl+c", "ctrl+q")
_QUEUED = (events.Key, events.Paste, events.MouseDown, events.MouseUp)


def _fitting(event: events.Event, focused: Widget | None) -> events.Event:
    """A paste cut to the room of the field that it goes to: a field takes a longer one not at all."""
    if isinstance(event, events.Paste) and isinstance(focused, Input) and focused.max_length:
        room = focused.max_length - len(focused.value) + len(focused.selected_text)
        return events.Paste(event.text[: max(room, 0)])
    return event


class Palette(CommandPalette):
    """The palette, which a second choice that was on its way does not close again, with what lies below it."""

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Close, once."""
        return super().dismiss(result) if self.is_active else AwaitComplete()


class EndedByItselfError(Exception):
    """The application ended, and nobody asked it to."""


class TerminalApp(App[ReturnType]):
    """The base of all applications.

    Attributes:
        crash: What ended the application, if nobody asked for its end.
    """

    TITLE = "r18-tui"
    BINDINGS: ClassVar = [INTERRUPT]

    def __init__(self, theme: str = "auto") -> None:
        """Take the terminal's driver and a theme.

        Args:
            theme: As `ui.theme`.
        """
        # Without colours also no greys, which Textual would send in their place.
        super().__init__(driver_class=TerminalDriver, ansi_color=True if no_color() else None)
        self.crash: BaseException | None = None
        self._asked_to_end = False
        self._typed: deque[events.Event] = deque()
        self._acting = 0
        for one in THEMES:
            self.register_theme(one)
        self.theme = theme_for(theme)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Colours of the themes that are not our own."""
        return colours_beside(self.current_theme)

    def action_interrupt(self) -> None:
        """Leave the screen by its `interrupt` or `action_cancel`; Textual's own screens, such as the palette, close."""
        interrupt = getattr(self.screen, "interrupt", None) or getattr(self.screen, "action_cancel", None)
        if interrupt is not None:
            interrupt()
        elif len(self.screen_stack) > 1:
            self.screen.dismiss(None)

    def action_command_palette(self) -> None:
        """Open the palette, unless one is open."""
        if not any(isinstance(screen, CommandPalette) for screen in self.screen_stack):
            self.push_screen(Palette(id="--command-palette"))

    def search_themes(self) -> None:
        """Choose a theme."""
        self.push_screen(Palette(providers=[ThemeProvider], placeholder="Search for themes"))

    # One key after another --------------------------------------------------------------------------------------------

    async def on_event(self, event: events.Event) -> None:
        """Keys, pastes and clicks wait until the one before has acted.

        Textual hands a key to the widget that has the focus, and acts on a binding when it comes back from there; of keys that
        arrive together a later character would be typed before an earlier backspace has acted.
        """
        if isinstance(event, _QUEUED) and not event.is_forwarded:
            if isinstance(event, events.Key) and event.key in _INTERRUPT_KEYS:
                while len(self._typed) > 1:  # it does not wait for what was typed ahead
                    self._typed.pop()
            self._typed.append(event)
            if len(self._typed) == 1:
                await self._act()
            return
        await super().on_event(event)

    async def _act(self) -> None:
        """Hand on the oldest key. The next follows once nothing is under way any more that it has set off."""
        if self._asked_to_end or not self.screen_stack:
            self._typed.clear()  # nobody is there any more to take them
            return
        number, event = self._acting, self._typed[0]
        way = self._place
        if isinstance(event, events.MouseEvent):
            with contextlib.suppress(NoWidget):
                way = tuple(self.get_widget_at(event.x, event.y)[0].ancestors_with_self)
        await super().on_event(_fitting(event, self.focused))
        self.set_timer(_KEY_S, partial(self._acted, number))  # where a widget of the way goes away
        # Twice: what a widget makes of a key, or of a click, it may post to itself.
        self._pass_along([*way, *way], partial(self._settle, number, ()))

    @property
    def _place(self) -> tuple[MessagePump, ...]:
        """The widget that has the focus, and all around it up to the application: the way of a key, and of what it sets off."""
        return tuple((self.focused or self.screen).ancestors_with_self) if self.screen_stack else ()

    def _settle(self, number: int, before: tuple[MessagePump, ...]) -> None:
        """Wait for what a key has set off, a dialog that opens or closes above all, until the focus stays."""
        place = self._place
        if number != self._acting:
            return
        if place == before:
            self._acted(number)
        else:
            self._pass_along(list(place), partial(self._settle, number, place))

    def _pass_along(self, way: list[MessagePump], then: Callable[[], None]) -> None:
        """Call a function after all that waits in the queues of some widgets, one after another."""
        if not way:
            then()
        elif not way[0].call_later(self._pass_along, way[1:], then):
            self._pass_along(way[1:], then)

    def _acted(self, number: int) -> None:
        if number != self._acting or not self._typed:
            return
        self._acting += 1
        self._typed.popleft()
        if self._typed:
            self.call_next(self._act)

    # The end ----------------------------------------------------------------------------------------------------------

    def exit(
        self, result: ReturnType | None = None, return_code: int = 0, message: RenderableType | None = None
    ) -> None:
        """End, as somebody has asked for."""
        self._asked_to_end = True
        super().exit(result, return_code, message)

    def panic(self, *renderables: RenderableType) -> None:
        """End by an error of Textual's own, which is kept and not printed over the screen."""
        self._handle_exception(EndedByItselfError("an error of Textual's own"))

    @property
    def ended_by(self) -> BaseException | None:
        """What ended the application; None when somebody asked for it."""
        if self.crash is None and not self._asked_to_end:
            return EndedByItselfError("the application ended unexpectedly")
        return self.crash

    def _handle_exception(self, error: Exception) -> None:
        if isinstance(error, WorkerFailed) and isinstance(error.error, NoMatches) and "Palette(" in str(error.error):
            return  # the palette was closed while it searched for commands, and nobody waits for them
        self.crash = self.crash or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        self._close_messages_no_wait()
