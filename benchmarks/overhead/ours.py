"""Our side: `python -m benchmarks.overhead.ours JOB ANSWER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import multitune
from benchmarks.overhead.module import Start
from multitune.tuning.events import read


def main() -> None:
    """Train as anyone would; when steps ended stands in the run's own events."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(1)
    start = Start.of(job["recipe"])
    answer: dict[str, Any] = {"parameters": start.parameters, **start.first_step(job["batch"])}
    result = multitune.train(job["recipe"], run=Path(job["folder"]) / "run")
    ended = {event["step"]: event["seconds"] for event in read(result.paths["run"] / "events.jsonl") if event["name"] == "train/loss"}
    answer["seconds_per_step"] = (ended[job["steps"]] - ended[job["from"]]) / (job["steps"] - job["from"])
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
