"""Commands to a paused run: it is evaluated, frozen, its rate edited, and continued."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.conftest import ConfigMaker
from tests.support.running import events_of, new_run, start, view_of, wait_for
from trainer.run.control import commands as cmd
from trainer.run.log.run_events import StagesFrozen
from trainer.run.status import RunState
from trainer.session import lr_range_trial
from trainer.training.lr_range_test import range_test

pytestmark = pytest.mark.usefixtures("narrow_network")


def test_a_run_stays_paused_during_other_commands(make_config: ConfigMaker, tmp_path: Path) -> None:
    run = new_run(make_config("train.epochs=200"), tmp_path / "runs")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 2)
    thread.commands.send(cmd.Pause())
    paused = wait_for(run.run_dir, lambda view: view.state is RunState.PAUSED)
    rate = paused.lr.last
    assert rate is not None
    keys = [
        cmd.Evaluate(), cmd.Freeze(), cmd.Freeze(), cmd.Unfreeze(), cmd.ScaleLr(factor=0.3), cmd.ScaleLr(factor=1 / 0.3),
    ]  # fmt: skip
    for key in keys:
        thread.commands.send(key)
    view = wait_for(run.run_dir, lambda view: view.acknowledged.keys() >= {key.command_id for key in keys})
    assert all(view.acknowledged[key.command_id].ok for key in keys)
    assert view.state is RunState.PAUSED
    assert view.paused
    assert view.paused_since == paused.paused_since
    assert [mark.kind for mark in view.marks if mark.kind == "pause"] == ["pause"]
    assert view.frozen is not None
    assert view.frozen.stages == ["stem"], "published before the next step"
    assert view.edit_to_undo is None
    assert view.step == paused.step
    assert view.next_lr == pytest.approx(rate)
    thread.commands.send(cmd.Unpause())
    view = wait_for(run.run_dir, lambda view: view.step > paused.step + 1)
    thread.stop()
    assert thread.join(60)
    assert not view.paused
    assert [note.text for note in view.notes if "at step" in note.text or "continues from" in note.text] == [
        f"paused at step {paused.step}", f"continues from step {paused.step}",
    ]  # fmt: skip
    frozen = [event.stages for event in events_of(run.run_dir, StagesFrozen)]
    assert frozen == [["stem"], ["stem", "layer1"], ["stem"]]


def test_a_paused_run_that_is_stopped_does_not_continue(make_config: ConfigMaker, tmp_path: Path) -> None:
    run = new_run(make_config("train.epochs=200"), tmp_path / "runs")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 2)
    thread.commands.send(cmd.Pause())
    wait_for(run.run_dir, lambda view: view.state is RunState.PAUSED)
    thread.stop()
    assert thread.join(60)
    view = view_of(run.run_dir)
    assert not view.paused
    assert not [note.text for note in view.notes if "continues from" in note.text]


def test_a_second_find_lr_stops_the_range_test(
    make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lr_range_trial, "range_test", functools.partial(range_test, steps=1_000_000))
    run = new_run(make_config("train.epochs=200"), tmp_path / "runs")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 2)
    first, second = cmd.FindLr(), cmd.FindLr()
    thread.commands.send(first)
    wait_for(run.run_dir, lambda view: view.state_detail == "learning rates")
    thread.commands.send(second)
    view = wait_for(run.run_dir, lambda view: first.command_id in view.acknowledged)
    assert view.acknowledged[second.command_id].ok
    assert view.acknowledged[first.command_id].message == "stopped by key"
    step = view.step
    wait_for(run.run_dir, lambda view: view.step > step + 1)
    thread.stop()
    assert thread.join(60)
    assert view_of(run.run_dir).lr_range is None


def test_a_factor_that_leads_out_of_range_is_refused(make_config: ConfigMaker, tmp_path: Path) -> None:
    run = new_run(make_config("train.epochs=200"), tmp_path / "runs")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 2)
    thread.commands.send(key := cmd.ScaleLr(factor=1e6))
    view = wait_for(run.run_dir, lambda view: key.command_id in view.acknowledged)
    thread.stop()
    assert thread.join(60)
    assert "is out of range" in view.acknowledged[key.command_id].message
