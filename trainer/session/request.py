"""A checked training request as plain data: one process can check it and another carry it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from trainer.config.plain_config import PlainConfig
from trainer.host.process_tuning import tune_process
from trainer.run.folder.run_dir import RunDir
from trainer.session.open_run import OpenRun, open_for_resume, open_new_run


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to train a run. Nothing has been written yet."""

    settings: PlainConfig
    runs_dir: Path
    resumed: RunDir | None = None  # None for a new run
    remark: str = ""  # message for the user

    def open(self) -> OpenRun:
        """Create or take the run and become its owner; R18Error when that fails."""
        tune_process()  # before the log's thread, the first of this process
        if self.resumed is not None:
            return open_for_resume(self.resumed, self.settings, self.runs_dir)
        return open_new_run(self.settings, self.runs_dir)

    def to_json(self) -> bytes:
        """Encode as one line, without its newline."""
        return orjson.dumps(
            {
                "values": self.settings.values, "yaml": self.settings.yaml, "runs_dir": str(self.runs_dir),
                "resumed": None if self.resumed is None else str(self.resumed.path), "remark": self.remark,
            }
        )  # fmt: skip

    @classmethod
    def from_json(cls, line: bytes) -> Request:
        """Decode the output of `to_json`."""
        data = orjson.loads(line)
        return cls(
            settings=PlainConfig(data["values"], data["yaml"]),
            runs_dir=Path(data["runs_dir"]),
            resumed=None if data["resumed"] is None else RunDir(Path(data["resumed"])),
            remark=data["remark"],
        )
