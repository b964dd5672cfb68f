"""MLflow, in an SQLite file of the run directory unless `MLFLOW_TRACKING_URI` names a server or a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from trainer.config.trackers import metric_name
from trainer.trackers.tracker import RunInfo, Tracker, finite

_EXPERIMENT = "r18-tui"
_BATCH = 1000  # most metrics per call
_LONGEST_VALUE = 6000


class MlflowTracker(Tracker):
    """A run of the experiment r18-tui: one for all sessions, found by a tag. MLflow has no histograms."""

    def __init__(self, info: RunInfo) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{info.folder.absolute() / 'mlflow.db'}")
        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(_EXPERIMENT)
        # Artifacts of a local store are kept beside it, rather than in the folder the program was started in.
        local = None if "MLFLOW_TRACKING_URI" in os.environ else (info.folder.absolute() / "artifacts").as_uri()
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(_EXPERIMENT, local)
        found = self._client.search_runs([experiment_id], f"tags.identity = '{info.identity}'", max_results=1)
        self._run = str(found[0].info.run_id) if found else self._create(experiment_id, info)
        self._metrics: list[Metric] = []
        self._notes = 0

    def _create(self, experiment_id: str, info: RunInfo) -> str:
        run = self._client.create_run(experiment_id, run_name=info.name, tags={"identity": info.identity}).info.run_id
        settings = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in info.settings.items()]
        self._client.log_batch(run, params=settings)
        return str(run)

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        self._metrics += [
            Metric(metric_name(name), value, int(1000 * time), step) for name, value in finite(values).items()
        ]
        if len(self._metrics) >= _BATCH:
            self.flush()

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"step-{step:08}.png"
            path.write_bytes(png)
            self._client.log_artifact(self._run, str(path), name)

    def note(self, text: str, *, step: int, time: float) -> None:
        self._notes += 1
        key = f"note.{step:08}.{int(1000 * time)}.{self._notes}"
        self._client.log_batch(self._run, tags=[RunTag(key, text[:_LONGEST_VALUE])])

    def flush(self) -> None:
        while self._metrics:
            self._client.log_batch(self._run, metrics=self._metrics[:_BATCH])
            del self._metrics[:_BATCH]

    def close(self, results: Mapping[str, float]) -> None:
        self.flush()
        for name, value in results.items():
            self._client.log_metric(self._run, metric_name(name), value)
        if results:
            self._client.set_terminated(self._run)


open_tracker = MlflowTracker
