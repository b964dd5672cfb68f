"""Bad input of every kind: a clear message with what to do next, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, FolderMaker, needs_exporter
from tests.support.running import new_run, train
from trainer.config.schema import Config
from trainer.model import device as devices
from trainer.run.folder.run_dir import RunDir
from tui.cli import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def keep_signal_handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command; returns its exit code and everything that it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, runs_dir: Path | None = None) -> tuple[int, str]:
        code = main([*arguments, "--runs-dir", str(runs_dir or tmp_path / "runs")])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return code, printed.out + printed.err

    return call


@pytest.mark.parametrize(
    ("text", "overrides", "parts"),
    [
        ("trian: {epochs: 3}\n", [], ["c.yaml:1: trian: unknown group", "train"]),
        ("train:\n  epoch: 3\n", [], ["c.yaml:2: train.epoch: unknown key; did you mean train.epochs?"]),
        ("train: {epochs: many}\n", [], ["c.yaml:1: train.epochs: expected int; found 'many'"]),
        ("train: [1\n", [], ["c.yaml:2:1: not valid YAML"]),
        (
            "train:\n  epochs: 1\n  epochs: 2\n",
            [],
            ["c.yaml:3: train.epochs: duplicate key; it is already on line 2"],
        ),
        ("", ["train.epochz=3"], ["command line: train.epochz: unknown key; did you mean train.epochs?"]),
    ],
)
def test_a_wrong_config_file_is_explained_and_nothing_is_written(
    run: Run, tmp_path: Path, text: str, overrides: list[str], parts: list[str]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    code, printed = run("c.yaml", *overrides)
    assert code == 2
    assert all(part in printed for part in parts), printed
    assert not (tmp_path / "runs").exists()


def test_a_missing_config_file_names_the_nearest_shipped_one(run: Run, tmp_path: Path) -> None:
    code, printed = run("digitz.yaml")
    assert code == 2
    assert "digitz.yaml: no such file; did you mean digits?" in printed
    assert not (tmp_path / "runs").exists()


def test_a_missing_gpu_is_explained_with_the_remedy(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "driver_version", lambda: None)
    code, printed = run("digits", "run.device=cuda")
    assert code == 2
    assert "run.device: cuda requested" in printed
    assert "run.device=cpu" in printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("classes", "message"),
    [((), "found 0 class folders"), (("only",), "found 1 class folder; a classifier needs at least two")],
)
def test_an_empty_or_one_class_folder_is_explained(
    run: Run, make_folder: FolderMaker, tmp_path: Path, classes: tuple[str, ...], message: str
) -> None:
    root = make_folder(classes=classes)
    for split in ("train", "test"):
        (root / split).mkdir(parents=True, exist_ok=True)
    code, printed = run("digits", *TINY, "data.kind=imagefolder", f"data.root={root}")
    assert code == 2
    assert message in printed
    assert "expected:" in printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["latest", "Latest", "none", "imagenet", "my.onnx"])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_reserved_run_name_is_refused(run: Run, tmp_path: Path, name: str, in_file: bool) -> None:
    (tmp_path / "c.yaml").write_text(f"run: {{name: {name}}}\n" if in_file else "")
    code, printed = run("c.yaml", *([] if in_file else ["--name", name]))
    assert code == 2
    assert f"run.name: {name} is reserved" in printed
    assert not (tmp_path / "runs").exists()


def test_a_refusal_before_the_first_step_leaves_no_run_behind(
    run: Run, tmp_path: Path, make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    assert run("digits", "data.kind=imagefolder", "data.root=nowhere")[0] == 2
    assert run("digits", "model.init_from=missing", "run.device=cpu")[0] == 2
    with monkeypatch.context() as patched:
        patched.setenv("R18_TUI_HOOK", "no-such-command")
        assert run("digits")[0] == 2
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits"]


def test_fewer_images_than_a_batch_are_explained(run: Run, make_folder: FolderMaker) -> None:
    code, printed = run("digits", *TINY, "data.kind=imagefolder", f"data.root={make_folder()}", "data.batch_size=100")
    assert code == 2
    assert "36 training images are fewer than data.batch_size 100; set data.batch_size to 9 or less" in printed


@pytest.mark.parametrize("place", ["file", "proc"])
def test_a_runs_folder_that_cannot_be_written_is_explained(run: Run, tmp_path: Path, place: str) -> None:
    """A file as parent, and a file system without folders: permission bits do not stop root."""
    (tmp_path / "file").write_text("")
    runs_dir = tmp_path / "file" / "runs" if place == "file" else Path("/proc/r18-runs")
    code, printed = run("digits", runs_dir=runs_dir)
    assert code == 2
    assert "cannot keep runs here" in printed
    assert "--runs-dir" in printed


def test_a_runs_folder_on_a_read_only_mount_is_explained(tmp_path: Path) -> None:
    """In a mount namespace of its own, since permission bits do not stop root."""
    mount = f"mount -t tmpfs -o ro none {shlex.quote(str(tmp_path))}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs a Linux that lets users mount")
    command = shlex.join(
        [sys.executable, "-m", "tui.cli", "digits", "--headless", "--runs-dir", str(tmp_path / "runs")]
    )
    result = subprocess.run([*unshare, f"{mount} && exec {command}"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"{tmp_path}/runs: cannot keep runs here: Read-only file system" in result.stderr
    assert "--runs-dir" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_settings_for_a_command_that_trains_nothing_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("show", "export"):
        code, printed = run(command, "latest", "train.epochs=3")
        assert code == 2
        assert f"train.epochs=3: {command} takes no settings" in printed
    with pytest.raises(SystemExit) as leaving:
        run("train.epochs=3")
    assert leaving.value.code == 2
    assert "CONFIG is missing" in capsys.readouterr().err


def test_a_corrupt_checkpoint_is_explained_and_left_alone(run: Run, folder_config: Config, tmp_path: Path) -> None:
    source = train(folder_config, tmp_path / "runs").run.run_dir
    latest = max(source.checkpoints.glob("step-*"))
    spoilt = latest.read_bytes()[:5000]
    latest.write_bytes(spoilt)
    code, printed = run("digits", *TINY, f"model.init_from={latest}")
    assert code == 2
    assert "damaged" in printed
    assert latest.read_bytes() == spoilt


@needs_exporter
def test_a_corrupt_checkpoint_is_not_exported(run: Run, folder_config: Config, tmp_path: Path) -> None:
    source = train(folder_config, tmp_path / "runs").run.run_dir
    latest = max(source.checkpoints.glob("step-*"))
    latest.write_bytes(latest.read_bytes()[:5000])
    code, printed = run("export", str(source.path))
    assert code == 2
    assert "damaged" in printed
    assert not list(source.export.iterdir())


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("eval.every_epochs=99999999999999999999", "expected numbers of at most 9,007,199,254,740,992"),
        ("data.root=\udcff", "not valid UTF-8"),
    ],
)
def test_values_that_a_log_cannot_hold_are_refused_before_anything_is_written(
    run: Run, tmp_path: Path, setting: str, reason: str
) -> None:
    code, printed = run("digits", setting)
    assert code == 2
    assert reason in printed
    assert not (tmp_path / "runs").exists()


def test_a_live_run_is_neither_resumed_nor_exported(run: Run, folder_config: Config, tmp_path: Path) -> None:
    live = new_run(folder_config, tmp_path / "runs")
    before = live.run_dir.events.read_bytes()
    for command in (("--resume", str(live.run_dir.path)), ("export", str(live.run_dir.path))):
        code, printed = run(*command)
        assert code == 2
        assert "already active in process" in printed
        assert f"r18-tui attach {live.run_dir.path}" in printed
    assert live.run_dir.events.read_bytes() == before
    live.close()


def test_a_run_that_does_not_exist_is_explained(run: Run) -> None:
    for command in (("--resume", "nothing"), ("show", "nothing"), ("export", "nothing"), ("--resume",)):
        code, printed = run(*command)
        assert code == 2
        assert "no run" in printed


def test_other_settings_on_resume_are_refused_with_the_difference(
    run: Run, folder_config: Config, tmp_path: Path
) -> None:
    source = train(folder_config, tmp_path / "runs").run.run_dir
    code, printed = run("--resume", str(source.path), "model.stem=imagenet")
    assert code == 2
    assert "model.stem: 'cifar-maxpool' -> 'imagenet'" in printed
    assert RunDir(source.path).config.read_text().count("cifar-maxpool") == 1


@pytest.mark.parametrize(
    ("listing", "text", "package"),
    [
        ("top_level.txt", "trainer\n", "trainer"),
        ("RECORD", "other/__init__.py,sha256=x,1\ntui/__init__.py,sha256=x,1\n", "tui"),
        ("RECORD", "trainer.py,sha256=x,1\n", "trainer"),
    ],
)
def test_another_package_with_our_top_level_name_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: str, text: str, package: str
) -> None:
    innocent = "innocent/trainer/__init__.py,sha256=x,1\ntui_tools/__init__.py,sha256=x,1\n"
    for name, file, content in (("other_tool-0.3.1", listing, text), ("innocent-1.0", "RECORD", innocent)):
        (tmp_path / f"{name}.dist-info").mkdir()
        (tmp_path / f"{name}.dist-info" / file).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, printed = run("digits")
    assert code == 2
    assert "'other_tool'" in printed
    assert f"'{package}'" in printed
    assert "innocent" not in printed


def test_a_resume_refuses_a_config_that_the_run_was_not_started_with(
    run: Run, folder_config: Config, tmp_path: Path
) -> None:
    source = train(folder_config, tmp_path / "runs").run.run_dir
    code, printed = run("cifar", "--resume", "latest")
    assert code == 2
    assert f"cifar: {source.path} was started with other settings" in printed
    assert "data.kind: 'imagefolder' in the run, 'cifar10' in the file" in printed
    code, printed = run(str(source.config), "--resume", "latest", "train.epochs=3")
    assert code == 0


def test_unreadable_runs_of_other_users_are_skipped(
    run: Run, folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = train(folder_config, tmp_path / "runs").run.run_dir
    (tmp_path / "runs" / "theirs").mkdir()
    stat = Path.stat

    def guarded(path: Path, **options: bool) -> object:
        if "theirs" in path.parts:
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", guarded)
    code, printed = run()
    assert code == 0
    assert str(mine.path) in printed
    assert "theirs" not in printed


def test_the_shipped_configurations_are_listed_without_arguments(run: Run) -> None:
    code, printed = run()
    assert code == 0
    for name in (
        "digits",
        "cifar",
        "cifar-fast",
        "cifar-accurate",
        "cifar-tutorial",
        "cifar-cpu",
        "cifar-cpu-quick",
        "finetune",
    ):
        assert f"r18-tui {name}\n" in printed


def test_a_path_with_an_equals_sign_is_not_an_override(run: Run, tmp_path: Path) -> None:
    code, printed = run("show", "--plain", str(tmp_path / "lr=1" / "run"))
    assert code == 2
    assert "lr=1/run: no run of this name" in printed


def test_escape_codes_in_names_never_reach_the_terminal(run: Run, make_folder: FolderMaker) -> None:
    root = make_folder()
    (root / "train" / "red" / "\x1b]0;owned\x07.png").write_text("no image")
    code, printed = run(
        "digits", *TINY, "train.epochs=1", "data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0"
    )
    assert code == 0
    assert "cannot read" in printed
    assert "\x1b" not in printed
