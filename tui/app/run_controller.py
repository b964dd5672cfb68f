"""The controller of a run on the screen."""

from __future__ import annotations

import time

from trainer.run.control import commands as cmd
from trainer.run.control.commands import Command, UndeliverableError
from trainer.run.folder.lock import stopped_pid
from trainer.run.log.result_events import Exported
from trainer.run.status import Presence, RunState
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from tui.app.screens.dashboard import DashboardScreen
from tui.drawing.glyphs import choose_glyphs
from tui.state.display_state import DisplayState
from tui.state.keys import BY_NAME, ActionContext
from tui.state.log_tail import LogReader
from tui.state.run_port import RunPort
from tui.widgets.key_bar import KeyBar

_MESSAGE_S = 4.0
_SILENT_S = 3.0  # time without events before checking whether the trainer's process is stopped

_READ_FOR_S = 0.1


class RunController:
    """Folds a run's events, tracks its unanswered commands and owns its dashboard, all on the application's thread."""

    def __init__(self, port: RunPort) -> None:
        self.port = port
        self.view = RunView()
        self.scene = DisplayState(view=self.view, run_dir=port.run_dir, glyphs=choose_glyphs())
        self.screen = DashboardScreen(self.scene, self.situation)
        self._log = LogReader(port.run_dir)
        self._printed = 0
        self._pending: dict[str, tuple[str, str]] = {}  # id of the command and word shown until the answer, by action
        self._last_state = RunState.LOADING
        self._message_until = 0.0
        self._has_read = self._has_news = False
        self._unread: list[bytes] = []
        self._exported: Exported | None = None
        self._knows_exports = False
        self.follow_trainer()

    def situation(self) -> ActionContext:
        """The state that decides whether an action can act now."""
        control, thread = self.port.control, self.port.thread
        return ActionContext(
            view=self.view,
            state=self.scene.state,
            can_control=control.can_control,
            refusal=control.refusal,
            session_open=control.can_control if thread is None else thread.alive,
            pending=frozenset(self._pending),
        )

    @property
    def at_rest(self) -> bool:
        """Whether nothing happens in the run without a command."""
        return self.scene.at_rest and not self.scene.behind and not self._pending and not self.view.exporting

    def read(self, now: float) -> bool:
        """Fold in new events at `now` (Unix seconds); returns whether the run has just ended, well or not, while watched."""
        if not self._catch_up():
            return False
        self.scene.viewport.keep_within(float(self.view.step), self.scene.total)
        self._take_output()
        self._take_answers()
        self._take_export()
        self.scene.now = now
        if self._message_until and time.monotonic() > self._message_until:
            self.show_message("")
        before, state = self._last_state, self.scene.state
        if state is not before:
            self._enter(state)
        ended = (RunState.FINISHED, RunState.FAILED)
        return state in ended and before not in (*ended, RunState.LOADING)

    def _catch_up(self) -> bool:
        """Fold in new events, for a tenth of a second at most so that keys act meanwhile; returns whether all were read."""
        scene, lines = self.scene, self._unread or self._new_lines()
        end = time.monotonic() + _READ_FOR_S
        while lines:
            replay(self.view, lines)
            scene.version += 1
            self._has_news = True
            lines = self._new_lines()
            if lines and time.monotonic() > end:
                break
        self._unread, was_behind, scene.behind = lines, scene.behind, bool(lines)
        if scene.behind:
            if not was_behind:
                self.screen.draw_now("header", "compact")
            return False
        if self._has_news and self._has_read:  # the first lines are history
            scene.heard_s = time.monotonic()
        self._has_read, self._has_news = self._has_read or self._has_news, False
        if was_behind:
            self.screen.draw_next()
        return True

    def _new_lines(self) -> list[bytes]:
        """New lines of the source; if it cannot be read, possibly for a while only, the reason is shown."""
        try:
            return self.port.source.read()
        except FileNotFoundError:
            self.show_message("the run directory was moved or deleted; q leaves, and r18-tui runs finds runs")
        except OSError as error:
            self.show_message(f"the log cannot be read ({error.strerror}); retrying")
        return []

    def follow_trainer(self) -> None:
        """Update the hint, presence and stopped process of a trainer in another process."""
        control, run_dir = self.port.control, self.port.run_dir
        control.refresh()
        self.scene.resume_command = run_dir.resume_command()
        silent = self.port.thread is None and self.scene.silence_s > _SILENT_S and control.presence is Presence.THERE
        stopped = stopped_pid(run_dir) if silent else None
        scene = self.scene
        if (control.hint, control.presence, stopped) != (scene.control_hint, scene.presence, scene.stopped_pid):
            scene.control_hint, scene.presence, scene.stopped_pid = control.hint, control.presence, stopped
            scene.version += 1

    def close(self) -> None:
        self.port.control.close()
        self._log.close()

    def _take_output(self) -> None:
        lines, added = self._log.lines, self._log.added
        if lines is not self.scene.output:
            self.scene.output = lines
            self.scene.unseen_output += added - self._printed
            self._printed = added
            self.scene.version += 1
            self.screen.draw_next("keys")

    def _enter(self, state: RunState) -> None:
        self._last_state = state
        if state in (RunState.FAILED, RunState.LOST):
            # Commands not answered by now never will be, except the one to end.
            self._pending = {name: asked for name, asked in self._pending.items() if name == "leave"}
            self._show_pending()
        self.screen.set_class(self.view.failure is not None, "-failed")
        self.screen.draw_now("header", "compact", "keys", "failure", "too-small")
        self.screen.draw_next()  # what led to the new state must not wait for the drawing budget

    def refuses(self, name: str) -> bool:
        """Whether an action cannot act now; shows the reason."""
        reason = BY_NAME[name].refusal(self.situation())
        if reason:
            self.show_message(f"{BY_NAME[name].label}: {reason}")
        return bool(reason)

    def send(self, name: str, command: Command, word: str) -> bool:
        """Send a command unless its action cannot act now; `word` is shown until the answer. Returns whether it was sent."""
        refused = self.refuses(name)
        if not refused:
            self.ask(name, command, word)
        return not refused

    def ask(self, name: str, command: Command, word: str) -> None:
        """Send a command whether or not its action can act now; an undeliverable one is shown as a message."""
        try:
            self.port.control.send(command)
        except UndeliverableError as error:
            self.show_message(str(error))
            return
        self._pending[name] = command.command_id, word
        self._show_pending()

    def show_message(self, text: str) -> None:
        """Show a text in place of the keys, for a few seconds."""
        self._message_until = time.monotonic() + _MESSAGE_S if text else 0.0
        self.screen.query_one("#keys", KeyBar).message = text
        self.screen.draw_now("keys")

    def _take_answers(self) -> None:
        answered = {name for name, (sent, _) in self._pending.items() if sent in self.view.acknowledged}
        for name in answered:
            ack = self.view.acknowledged[self._pending.pop(name)[0]]
            done = "under way" if ack.command == cmd.Export.name else "done"
            self.show_message(f"{ack.command}: {done if ack.ok else ack.message}")
        if answered:
            self._show_pending()

    def _take_export(self) -> None:
        """Show the path of a file that was exported while the run was watched."""
        exported, before = self.view.exported, self._exported
        self._exported = exported
        if exported is not None and exported is not before and self._knows_exports:
            self.show_message(f"exported and checked: {self.view.place_of(exported.path)}")
        self._knows_exports = True

    def _show_pending(self) -> None:
        self.scene.pending = {name: word for name, (_, word) in self._pending.items()}
        self.screen.draw_now("header", "compact", "keys")
