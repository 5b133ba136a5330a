"""MLflow: a store of files in `trackers/mlflow` of the run's folder, or the server that `uri` names.

`mlflow ui --backend-store-uri FOLDER` shows the files, where `train/gradient_norm/image` is `train/gradient_norm.image`. A resumed run
goes on as the same MLflow run.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import TrackerError
from multitune.core.protocols import Tracker
from multitune.core.rundir import write_atomic
from multitune.tuning.events.reaching import reach

PACKAGE = "mlflow"
KEPT = "run-id.txt"
# A server that stops answering may not hold up the run for minutes. What the user has set stays.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_ALLOW_FILE_STORE": "true"}
LONGEST = 5_000  # characters of a parameter


class Options(catalog.Options):
    """Where it is kept."""

    uri: str = Field(default="", description="a tracking server such as http://localhost:5000; empty: files in the run's folder")
    experiment: str = Field(default="multitune", description="the experiment that holds the run")


class MLflow:
    """Accelerate's tracker around an MLflow run."""

    def __init__(self, options: Options, folder: Path, name: str, config: Mapping[str, str | float]) -> None:
        if options.uri.startswith(("http://", "https://")):
            reach(options.uri, name="mlflow", remedy="Start the server, or leave uri out: files are kept then.")
        for variable, value in PATIENCE.items():
            os.environ.setdefault(variable, value)
        folder.mkdir(parents=True, exist_ok=True)
        self.where = options.uri or str(folder)
        kept = folder / KEPT
        with _told():
            from accelerate import PartialState
            from accelerate.tracking import MLflowTracker

            PartialState()  # without it the tracker, which logs, is refused
            importlib.import_module("mlflow").set_tracking_uri(options.uri or folder.resolve().as_uri())
            before = kept.read_text("utf-8").strip() if kept.is_file() else None
            self._tracker: Any = MLflowTracker(options.experiment, run_id=before, run_name=name)
            self._tracker.start()
            if before is None:
                write_atomic(kept, str(self._tracker.tracker.info.run_id).encode())
                self._tracker.store_init_configuration({key: str(value)[:LONGEST] for key, value in config.items()})

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """A point on each curve."""
        with _told():
            self._tracker.log({_name(name): value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """End the MLflow run."""
        with _told():
            self._tracker.finish()


def build(options: Options, *, folder: Path, name: str, after: int, config: Mapping[str, str | float]) -> Tracker:
    """The tracker of a run."""
    return MLflow(options, folder, name, config)


def _name(name: str) -> str:
    """A figure's name as the store of files takes it, where `train/loss` cannot be a file and a folder: `train/loss.label`."""
    first, slash, rest = name.partition("/")
    return re.sub(r"[^\w.\- :/]", "_", first + slash + rest.replace("/", "."))


@contextmanager
def _told() -> Generator[None]:
    """MLflow's own errors as ours."""
    refused = importlib.import_module("mlflow.exceptions").MlflowException
    try:
        yield
    except refused as error:
        raise TrackerError(f"mlflow: {str(error).splitlines()[0]}") from None
