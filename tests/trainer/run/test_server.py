"""Commands to a trainer from other processes: accepted and refused ones, and robustness against clients."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from trainer.host.private_folder import private_folder
from trainer.run.control import commands as cmd
from trainer.run.control import server as control_socket
from trainer.run.control.client import SocketControl
from trainer.run.control.command_json import LONGEST_LINE, decode_command, encode_command
from trainer.run.control.commands import Command, CommandQueue, UndeliverableError
from trainer.run.control.server import MOST_CLIENTS, MOST_PER_SECOND, MOST_WAITING, ControlServer
from trainer.run.folder.lock import RunLock
from trainer.run.folder.run_dir import RunDir, create_run
from trainer.run.status import Presence

ID = b'"id": "0123456789ab"'


@pytest.fixture
def commands() -> CommandQueue:
    return CommandQueue()


@pytest.fixture
def server(commands: CommandQueue) -> Iterator[ControlServer]:
    server = ControlServer(commands)
    yield server
    server.close()


@pytest.fixture
def run_dir(tmp_path: Path, server: ControlServer) -> Iterator[RunDir]:
    """A live run whose trainer accepts commands."""
    run_dir = create_run(tmp_path, "demo")
    lock = RunLock.take(run_dir)
    lock.publish_facts(socket=str(server.path))
    yield run_dir
    lock.release()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, f"timed out: {what}"
        time.sleep(0.01)


def connected(server: ControlServer) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect(str(server.path))
    return client


def acknowledgement(server: ControlServer, data: bytes) -> str:
    """The reason with which the server closes the connection after `data`."""
    with connected(server) as client:
        client.sendall(data)
        answer = client.recv(4096)
        assert client.recv(1) == b"", "the connection must be closed"
    return str(orjson.loads(answer)["error"])


@pytest.mark.parametrize(
    "command",
    [
        cmd.Pause(), cmd.Unpause(), cmd.SaveCheckpoint(), cmd.Evaluate(), cmd.Export(), cmd.SetLr(lr=0.05),
        cmd.ScaleLr(factor=0.5), cmd.GoBack(),
        cmd.Unfreeze(), cmd.Freeze(), cmd.AddNote(text="looks [b]good[/] äöü" * 10), cmd.Stop(),
        cmd.ChangeSettings(settings={"train.epochs": 20, "checkpoint.every_s": 7.5}),
    ],
    ids=lambda command: command.name,
)  # fmt: skip
def test_every_command_arrives_unchanged(run_dir: RunDir, commands: CommandQueue, command: Command) -> None:
    control = SocketControl(run_dir)
    assert control.can_control
    control.send(command)
    assert commands.take(timeout=10) == command
    control.close()


def test_a_stop_of_another_process_carries_no_signal_or_exit_code() -> None:
    assert decode_command(encode_command(cmd.Stop(reason="SIGTERM", exit_code=143, command_id="0" * 12))) == cmd.Stop(
        command_id="0" * 12
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "unexpected end|empty"),
        (b'{"command": "note", ' + ID + b"}", "note takes one text"),
        (b'{"command": "note", "text": "a\\nb", ' + ID + b"}", "one line of 1 to 200"),
        (b'{"command": "note", "text": " ", ' + ID + b"}", "one line of 1 to 200"),
        (b'{"command": "note", "text": "' + b"x" * 201 + b'", ' + ID + b"}", "one line of 1 to 200"),
        (b"pause", "unexpected"),
        (b"[1]", "JSON object"),
        (b"{" + ID + b"}", "unknown command; known commands: pause, unpause"),
        (b'{"command": "__class__", ' + ID + b"}", "unknown command"),
        (b'{"command": ["pause"], ' + ID + b"}", "unknown command"),
        (b'{"command": "pause"}', "twelve hexadecimal"),
        (b'{"command": "pause", "id": "../../../etc"}', "twelve hexadecimal"),
        (b'{"command": "pause", "id": 1}', "twelve hexadecimal"),
        (b'{"command": "stop", "exit_code": 0, ' + ID + b"}", "no arguments"),
        (b'{"command": "set lr", ' + ID + b"}", "one number"),
        (b'{"command": "set lr", "lr": true, ' + ID + b"}", "one number"),
        (b'{"command": "set lr", "lr": "0.1", ' + ID + b"}", "one number"),
        (b'{"command": "set lr", "lr": 0, ' + ID + b"}", "above 0"),
        (b'{"command": "set lr", "lr": 1e300, ' + ID + b"}", "above 0"),
        (b'{"command": "set lr", "lr": 1e400, ' + ID + b"}", "above 0|number|range"),
        (b'{"command": "set lr", "lr": 0.1, "more": 1, ' + ID + b"}", "one number"),
        (b"[" * LONGEST_LINE, "memory|recursion"),
        (b" " * (LONGEST_LINE + 1), "at most"),
    ],
)
def test_anything_but_a_valid_command_is_refused(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){reason}"):
        decode_command(line)


def test_a_refused_client_receives_the_reason_and_others_are_not_affected(
    run_dir: RunDir, server: ControlServer, commands: CommandQueue
) -> None:
    control = SocketControl(run_dir)
    assert "unknown command" in acknowledgement(server, b'{"command": "rm"}\n')
    assert "at most" in acknowledgement(server, b"x" * (LONGEST_LINE + 1))
    flood = encode_command(cmd.Pause()) * (MOST_PER_SECOND + 1)
    assert f"more than {MOST_PER_SECOND}" in acknowledgement(server, flood)
    for _ in range(MOST_PER_SECOND):
        commands.take()
    control.send(cmd.Evaluate())
    assert isinstance(commands.take(timeout=10), cmd.Evaluate)
    control.close()


def test_the_number_of_waiting_commands_is_limited(server: ControlServer, commands: CommandQueue) -> None:
    for _ in range(MOST_WAITING):
        commands.send(cmd.Evaluate())
    assert "too many" in acknowledgement(server, encode_command(cmd.Pause()))
    assert commands.waiting == MOST_WAITING


def test_a_command_may_arrive_in_pieces(server: ControlServer, commands: CommandQueue) -> None:
    pause, stop = cmd.Pause(), cmd.Stop()
    data = encode_command(pause) + encode_command(stop)
    with connected(server) as client:
        for start in range(0, len(data), 7):
            client.sendall(data[start : start + 7])
            time.sleep(0.002)
        assert [commands.take(timeout=10), commands.take(timeout=10)] == [pause, stop]


def test_the_number_of_clients_is_limited(run_dir: RunDir, server: ControlServer) -> None:
    clients = [connected(server) for _ in range(MOST_CLIENTS)]
    with connected(server) as one_more:
        assert b"too many terminals are attached" in one_more.recv(4096)
    control = SocketControl(run_dir)
    wait_for(lambda: control.refresh() or not control.can_control, "the refusal of the additional client")  # type: ignore[func-returns-value]
    for _ in range(3):
        assert control.hint == f"read-only: too many terminals are attached; the limit is {MOST_CLIENTS}"
        with pytest.raises(UndeliverableError, match="pause: refused: too many terminals are attached"):
            control.send(cmd.Pause())
        control.refresh()
    for client in clients:
        client.close()
    wait_for(lambda: control.refresh() or control.can_control, "a free place")  # type: ignore[func-returns-value]
    assert (control.hint, control.refusal) == ("attached", "")
    control.close()
    wait_for(lambda: not server._clients, "the disconnects")
    with connected(server) as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)  # an accepted client receives nothing


@pytest.mark.parametrize("uid", [os.getuid() + 1, 65_534, 0 if os.getuid() else 1, -1])
def test_another_user_is_refused(
    server: ControlServer, commands: CommandQueue, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    monkeypatch.setattr(control_socket, "_peer_uid", lambda _: uid)
    with connected(server) as client:
        assert b"only the owner" in client.recv(4096)
        assert client.recv(1) == b"", "the connection is closed"
    assert server._clients == {}
    assert commands.waiting == 0


def test_the_user_of_a_closed_socket_is_unknown() -> None:
    closed, other = socket.socketpair()
    with other:
        closed.close()
        assert control_socket._peer_uid(closed) == -1


def test_the_user_at_the_other_end_is_known() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert control_socket._peer_uid(near) == os.getuid()


def test_the_folder_of_sockets_must_be_private(tmp_path: Path) -> None:
    folder = private_folder(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder(tmp_path) == folder
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="only this user"):
        private_folder(tmp_path)
    folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="only this user"):
        private_folder(tmp_path)


def test_sockets_of_killed_trainers_are_removed_and_those_of_live_ones_kept(
    server: ControlServer, commands: CommandQueue
) -> None:
    abandoned = private_folder() / "0123456789abcdef.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(abandoned))
    other = ControlServer(commands)
    assert not abandoned.exists()
    assert server.path.exists()
    other.close()
    assert not other.path.exists()


def test_an_old_unfinished_socket_is_removed(commands: CommandQueue) -> None:
    young, old = (private_folder() / f"{os.urandom(8).hex()}.new" for _ in range(2))
    for path in (young, old):
        path.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    try:
        ControlServer(commands).close()
        assert (young.exists(), old.exists()) == (True, False)
    finally:
        young.unlink()


def test_a_failed_bind_leaves_nothing_open(commands: CommandQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = private_folder() / f"{bytes(8).hex()}.new"
    taken.touch()
    monkeypatch.setattr("trainer.run.control.server.os.urandom", bytes)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="in use"):
        ControlServer(commands)
    assert len(os.listdir("/dev/fd")) == before
    assert not taken.exists()


def test_blank_lines_count_as_commands(server: ControlServer) -> None:
    assert "commands per second" in acknowledgement(server, b"\n" * (MOST_PER_SECOND + 1))


def test_a_client_reconnects_to_the_trainer_of_a_resumed_run(run_dir: RunDir, commands: CommandQueue) -> None:
    control = SocketControl(run_dir)
    assert control.can_control
    # The trainer has ended, and another one has resumed the run.
    first = control._connection
    assert first is not None
    first.shutdown(socket.SHUT_RDWR)
    control.refresh()
    assert control.can_control
    control.send(cmd.Pause())
    assert isinstance(commands.take(timeout=10), cmd.Pause)
    control.close()


def test_a_killed_trainer_is_recognised(tmp_path: Path, server: ControlServer) -> None:
    run_dir = create_run(tmp_path, "demo")
    lock = RunLock.take(run_dir)
    lock.publish_facts(socket=str(server.path))
    control = SocketControl(run_dir)
    assert (control.can_control, control.presence) == (True, Presence.THERE)
    server.close()
    owner = run_dir.trainer.read_bytes()
    lock.release()
    run_dir.trainer.write_bytes(owner)  # a killed trainer does not empty it
    control.refresh()
    assert (control.can_control, control.presence) == (False, Presence.GONE)
    assert "r18-tui --resume" in control.refusal
    with pytest.raises(UndeliverableError, match="pause: this run is not active"):
        control.send(cmd.Pause())


@pytest.mark.parametrize(
    ("owner", "reason"),
    [
        ({"host": "gpu-box-7", "boot_id": "another"}, "it runs on gpu-box-7"),
        ({"boot_id": "another"}, "it runs on"),
        ({"socket": "/tmp/0123456789abcdef.sock"}, "another user"),
        ({"socket": "/tmp/x/../etc/passwd"}, "accepts no commands"),
        ({"socket": None}, "accepts no commands"),
    ],
)
def test_an_unreachable_trainer_is_read_only(
    tmp_path: Path, server: ControlServer, owner: dict[str, object], reason: str
) -> None:
    run_dir = create_run(tmp_path, "demo")
    lock = RunLock.take(run_dir)
    lock.publish_facts(**({"socket": str(server.path)} | owner))
    control = SocketControl(run_dir)
    assert not control.can_control
    assert control.presence is Presence.THERE
    assert reason in control.refusal
    lock.release()


def test_a_renamed_machine_is_recognised_by_its_boot_id(tmp_path: Path, server: ControlServer) -> None:
    run_dir = create_run(tmp_path, "demo")
    lock = RunLock.take(run_dir)
    lock.publish_facts(socket=str(server.path), host="its-old-name")
    control = SocketControl(run_dir)
    assert control.can_control
    control.close()
    lock.release()


def test_a_deleted_socket_is_created_again_and_its_clients_stay(
    commands: CommandQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "_LOOK_S", 0.05)
    server = ControlServer(commands)
    try:
        with connected(server) as before:
            for replacement in (None, "not a socket"):
                server.path.unlink()
                if replacement:
                    server.path.write_text(replacement)
                wait_for(server.path.is_socket, "the socket")
                with connected(server) as client:
                    client.sendall(encode_command(cmd.Pause()))
                    wait_for(lambda: isinstance(commands.take(), cmd.Pause), "a command of a new client")
            before.sendall(encode_command(cmd.Unpause()))
            wait_for(lambda: isinstance(commands.take(), cmd.Unpause), "a command of an old client")
    finally:
        server.close()
    assert not server.path.exists()
