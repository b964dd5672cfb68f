"""What TensorBoard, wandb, MLflow and trackio store of a run."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.tracked_events import evaluated, layers, saved, started, steps
from trainer.config.loader import to_yaml
from trainer.config.schema import Config
from trainer.host.self_command import own_command
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Finished, NoteAdded, Resumed
from trainer.run.log.writer import EventLog
from trainer.trackers.relay import relay_log
from trainer.trackers.tracker import RunInfo


@pytest.fixture
def recorded(tmp_path: Path, folder_config: Config) -> RunDir:
    """A run that was resumed and has ended."""
    run = RunDir(tmp_path / "demo")
    run.path.mkdir()
    run.config.write_text(to_yaml(folder_config))
    log = EventLog(run.events)
    for event in (
        started(), steps(1, count=4, loss=None), layers(4), evaluated(4), saved(4), steps(5),
        Resumed(step=4, epoch=1, checkpoint="x"), steps(5, count=4), layers(8), evaluated(8),
        NoteAdded(step=8, text="*a* note"), saved(8), Finished(reason="completed", step=8, epoch=2.0, exit_code=0),
    ):  # fmt: skip
        log.publish(event)
    log.close()
    return run


def test_tensorboard_has_every_step_once(recorded: RunDir) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    relay_log(recorded, "tensorboard", lambda: True)
    relay_log(recorded, "tensorboard", lambda: True)  # adds nothing
    logged = EventAccumulator(
        str(recorded.sinks / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0}
    ).Reload()
    losses = logged.Scalars("train/loss")
    assert [point.step for point in losses] == list(range(1, 9))
    assert math.isnan(losses[0].value)
    assert losses[-1].value == 1.0
    assert logged.Scalars("test_class/[red]dog[/]")[0].value == 0.5
    assert [point.step for point in logged.Histograms("weights/fc")] == [4, 8]
    assert logged.Histograms("weights/conv1")[0].histogram_value.bucket == [1.0, 2.0, 1.0]
    tags = logged.Tags()
    assert "notes/text_summary" in tags["tensors"]
    assert "_hparams_/session_start_info" in logged.summary_metadata


def test_pictures_reach_tensorboard(recorded: RunDir) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from trainer.trackers.tensorboard import open_tracker

    file = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(file, "png")
    folder = recorded.path / "pictures"
    sink = open_tracker(RunInfo(name="a", identity="b", folder=folder, config={}, step=0))
    sink.picture("mistakes/test", file.getvalue(), step=4, time=1.0)
    sink.close({})
    [image] = EventAccumulator(str(folder)).Reload().Images("mistakes/test")
    assert (image.width, image.height, image.step) == (6, 4, 4)


def test_wandb_stores_a_run_offline(recorded: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    relay_log(recorded, "wandb", lambda: True)
    [file] = (recorded.sinks / "wandb").glob("wandb/offline-run-*/*.wandb")
    assert b"train/loss" in file.read_bytes()


def test_mlflow_has_every_step_once(recorded: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    relay_log(recorded, "mlflow", lambda: True)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{recorded.sinks / 'mlflow' / 'mlflow.db'}")
    [experiment] = [each for each in client.search_experiments() if each.name == "r18-tui"]
    [run] = client.search_runs([experiment.experiment_id])
    assert sorted(metric.step for metric in client.get_metric_history(run.info.run_id, "train/rate")) == list(
        range(1, 9)
    )
    assert run.info.status == "FINISHED"


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_has_every_step_once(recorded: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    # In another process: the package decides where to write when it is imported.
    command = own_command("trainer.cli", "sync", str(recorded.path), "--to", "trackio")
    result = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "trackio has demo up to step 8" in result.stdout
    identity = json.loads((recorded.sinks / "trackio" / "position.json").read_bytes())["identity"]
    code = "import sys; from trackio.cli import main; sys.exit(main())"
    query = ["get", "metric", "--project", "r18-tui", "--run", f"demo-{identity}", "--metric", "train/rate", "--json"]
    answer = subprocess.run(
        [sys.executable, "-c", code, *query], timeout=60, capture_output=True, check=True,
        env=os.environ | {"TRACKIO_DIR": str(recorded.sinks / "trackio")},
    )  # fmt: skip
    assert [point["step"] for point in json.loads(answer.stdout)["values"]] == list(range(1, 9))
