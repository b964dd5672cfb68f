"""The base of all applications: driver, themes, sequential handling of keys, and reporting of unexpected ends."""

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
"""Acts on every screen, also while a text is being typed."""

_KEY_S = 0.25  # longest time that a key delays the next one
_INTERRUPT_KEYS = ("ctrl+c", "ctrl+q")
_LEAVING = ("again", "leave", "cancel")
"""Actions that leave a screen, by precedence: ctrl+c is "again" on the question of key `q`, which also has "cancel"."""
_QUEUED = (events.Key, events.Paste, events.MouseDown, events.MouseUp)


def _fitting(event: events.Event, focused: Widget | None) -> events.Event:
    """Cut a paste to the room of its field: a field rejects a longer one entirely."""
    if isinstance(event, events.Paste) and isinstance(focused, Input) and focused.max_length:
        room = focused.max_length - len(focused.value) + len(focused.selected_text)
        return events.Paste(event.text[: max(room, 0)])
    return event


class Palette(CommandPalette):
    """A palette that ignores a second choice already on its way, which would also close the screen below it."""

    def dismiss(self, result: Any = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete()


class UnexpectedExitError(Exception):
    """The application ended without a request."""


class TerminalApp(App[ReturnType]):
    """The base of all applications; `crash` is what ended it, if its end was not requested."""

    TITLE = "r18-tui"
    BINDINGS: ClassVar = [INTERRUPT]

    def __init__(self, theme: str = "auto") -> None:
        """`theme` is the setting `ui.theme`."""
        # Without colours also no greys, which Textual would send in their place.
        super().__init__(driver_class=TerminalDriver, ansi_color=True if no_color() else None)
        self.crash: BaseException | None = None
        self._exit_requested = False
        self._typed: deque[events.Event] = deque()
        self._acting = 0
        for one in THEMES:
            self.register_theme(one)
        self.theme = theme_for(theme)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """The program's colours, for themes that are not its own."""
        return colours_beside(self.current_theme)

    def action_interrupt(self) -> None:
        """Call the first of `_LEAVING` that the screen has; Textual's own screens, such as the palette, close."""
        actions = (getattr(self.screen, f"action_{name}", None) for name in _LEAVING)
        leave = next(filter(None, actions), None)
        if leave is not None:
            leave()
        elif len(self.screen_stack) > 1:
            self.screen.dismiss(None)

    def action_command_palette(self) -> None:
        if not any(isinstance(screen, CommandPalette) for screen in self.screen_stack):
            self.push_screen(Palette(id="--command-palette"))

    def search_themes(self) -> None:
        self.push_screen(Palette(providers=[ThemeProvider], placeholder="Search for themes"))

    async def on_event(self, event: events.Event) -> None:
        """Hold back keys, pastes and clicks until the previous one has acted.

        Textual passes a key to the focused widget, and runs a binding when the key bubbles back from there; of keys that
        arrive together a later character would be typed before an earlier backspace has acted.
        """
        if isinstance(event, _QUEUED) and not event.is_forwarded:
            if isinstance(event, events.Key) and event.key in _INTERRUPT_KEYS:
                while len(self._typed) > 1:  # it does not wait for keys typed ahead
                    self._typed.pop()
            self._typed.append(event)
            if len(self._typed) == 1:
                await self._act()
            return
        await super().on_event(event)

    async def _act(self) -> None:
        """Pass on the oldest key. The next follows once everything that this one triggered is done."""
        if self._exit_requested or not self.screen_stack:
            self._typed.clear()  # no widget is left to take them
            return
        number, event = self._acting, self._typed[0]
        way = self._focus_path
        if isinstance(event, events.MouseEvent):
            with contextlib.suppress(NoWidget):
                way = tuple(self.get_widget_at(event.x, event.y)[0].ancestors_with_self)
        await super().on_event(_fitting(event, self.focused))
        self.set_timer(_KEY_S, partial(self._acted, number))  # in case a widget on the path is removed
        # Twice: a widget may post to itself in response to a key or a click.
        self._after_queues_of([*way, *way], partial(self._settle, number, ()))

    @property
    def _focus_path(self) -> tuple[MessagePump, ...]:
        """The focused widget and its ancestors up to the application: the path of a key, and of the messages that it triggers."""
        return tuple((self.focused or self.screen).ancestors_with_self) if self.screen_stack else ()

    def _settle(self, number: int, before: tuple[MessagePump, ...]) -> None:
        """Wait for the effects of a key, above all a dialog that opens or closes, until the focus no longer changes."""
        place = self._focus_path
        if number != self._acting:
            return
        if place == before:
            self._acted(number)
        else:
            self._after_queues_of(list(place), partial(self._settle, number, place))

    def _after_queues_of(self, way: list[MessagePump], then: Callable[[], None]) -> None:
        """Call a function after everything that waits in the queues of some widgets, one after another."""
        if not way:
            then()
        elif not way[0].call_later(self._after_queues_of, way[1:], then):
            self._after_queues_of(way[1:], then)

    def _acted(self, number: int) -> None:
        if number != self._acting or not self._typed:
            return
        self._acting += 1
        self._typed.popleft()
        if self._typed:
            self.call_next(self._act)

    def exit(
        self, result: ReturnType | None = None, return_code: int = 0, message: RenderableType | None = None
    ) -> None:
        self._exit_requested = True
        super().exit(result, return_code, message)

    def panic(self, *renderables: RenderableType) -> None:
        """Exit on an error of Textual's own, which is kept and not printed over the screen."""
        self._handle_exception(UnexpectedExitError("an error of Textual's own"))

    @property
    def ended_by(self) -> BaseException | None:
        """What ended the application; None if its end was requested."""
        if self.crash is None and not self._exit_requested:
            return UnexpectedExitError("the application ended unexpectedly")
        return self.crash

    def _handle_exception(self, error: Exception) -> None:
        if isinstance(error, WorkerFailed) and isinstance(error.error, NoMatches) and "Palette(" in str(error.error):
            return  # the palette was closed while it searched for commands, so the results are not needed
        self.crash = self.crash or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        self._close_messages_no_wait()
