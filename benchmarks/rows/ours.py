"""One run: `python -m benchmarks.rows.ours JOB ANSWER`. A thread of its own looks at the process's private memory all the while."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOOKS = 0.004  # seconds between two looks
NAMES = {"RssAnon": "private", "RssFile": "mapped"}


def recipe(job: Mapping[str, Any]) -> dict[str, Any]:
    """A text transformer of one block, a few steps, one evaluation."""
    return {
        "name": "rows",
        "task": "classification",
        "data": {
            "source": {"name": "table", "path": job["table"]},
            "parts": {"text": "text", "label": "category"},
            "answers": ["label"],
            "split": {"train": 1 - 2 * job["share"], "valid": job["share"], "test": job["share"]},
        },
        "model": {"name": "fusion_encoder", "towers": {"text": {"name": "text_transformer", "depth": 1, "width": 16, "heads": 2}}},
        "strategy": "full",
        "train": {"steps": job["steps"], "batch_size": 8, "workers": 0, "device": "cpu", "threads": 1, "evaluate_every": job["steps"]},
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }


class Watch(threading.Thread):
    """The most that this process had in memory, private and mapped, by kind."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = dict.fromkeys(NAMES.values(), 0)
        self.over = threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        while not self.over.wait(LOOKS):
            self.look()

    def look(self) -> None:
        """Look once."""
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in NAMES:
                self.most[NAMES[name]] = max(self.most[NAMES[name]], int(rest.split()[0]) * 1024)


def main() -> None:
    """Run, and tell the peaks."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    os.environ["MULTITUNE_CACHE"] = str(Path(job["folder"]) / "cache")
    watch = Watch()
    watch.start()
    began = time.perf_counter()
    import multitune

    multitune.train(recipe(job), run=Path(job["folder"]) / "run")
    answer = {"seconds": time.perf_counter() - began}
    watch.over.set()
    watch.join()
    Path(sys.argv[2]).write_text(json.dumps({**answer, **watch.most}), "utf-8")


if __name__ == "__main__":
    main()
