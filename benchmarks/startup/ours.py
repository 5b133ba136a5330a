"""Our side: `python benchmarks/startup/ours.py JOB ANSWER`. A tracker of our own takes the time of the first step."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import multitune
from multitune.core import catalog


class Clock:
    """Takes the time at which the first figures of a step come."""

    where = ""

    def __init__(self) -> None:
        self.stepped = self.cpu = 0.0

    def write(self, values: dict[str, float], *, step: int) -> None:
        """The first step's figures are written as it ends."""
        if step == 1 and not self.stepped:
            self.stepped, self.cpu = time.monotonic(), time.process_time()

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Train one step, and say when it ended."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    clock = Clock()
    plugin = SimpleNamespace(__doc__="Takes the time.", Options=catalog.Options, build=lambda options, **told: clock)
    multitune.register("tracker", "clock", plugin)
    recipe = {
        "name": "startup",
        "task": "classification",
        "data": {
            "source": {"name": "table", "path": job["table"]},
            "parts": {"image": "image", "label": "category"},
            "answers": ["label"],
            "split": {"train": 0.999, "valid": 0.0, "test": 0.001},
        },
        "model": {"name": "fusion_encoder", "towers": {"image": {"name": "vit", "depth": 4, "width": 128, "image_size": 64}}},
        "strategy": "full",
        "train": {"steps": 1, "batch_size": job["batch"], "device": "cpu", "workers": 0, "trackers": ["clock"]},
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }
    multitune.train(recipe, run=Path(job["folder"]) / "run")
    Path(sys.argv[2]).write_text(json.dumps({"stepped": clock.stepped, "cpu": clock.cpu}), "utf-8")


if __name__ == "__main__":
    main()
