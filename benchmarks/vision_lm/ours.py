"""One run of the comparison: `python -m benchmarks.vision_lm.ours JOB ANSWER`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import multitune
from multitune.verbs.train.line import Line


def recipe(job: Mapping[str, Any]) -> dict[str, Any]:
    """The vision tower frozen, the projector and adapters in the language model moving."""
    steps = -(-int(job["train_rows"]) // int(job["batch_size"]))
    features = {"store": "off"} if job["store"] == "off" else {"store": job["store"], "folder": job["features"] or f"{job['folder']}/store"}
    return {
        "name": "vision-lm",
        "task": "captioning",
        "data": {
            "source": {"name": "table", "path": job["table"]},
            "parts": {"photo": "image", "question": "text", "answer": "text"},
            "answers": ["answer"],
            "split": {"column": "split"},
        },
        "model": {"name": "generative", "pretrained": job["model"]},
        "strategy": {"name": "lora", "rank": 8, "towers": ["lm"]},
        "features": features,
        "train": {
            "steps": steps * int(job["epochs"]),
            "batch_size": job["batch_size"],
            "lr": 1e-3,
            "threads": job["threads"],
            "workers": 0,
            "evaluate_every": steps,
        },
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False, "generate": {"max_new_tokens": 4}},
    }


class Watch:
    """Seconds and calls of one module, and when the line stood."""

    def __init__(self) -> None:
        self.seconds, self.calls, self.ready, self._began = 0.0, 0, 0.0, 0.0

    def on(self, module: nn.Module) -> None:
        """Watch it."""
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began
        self.calls += 1


def measured(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train; seconds from the moment the model stands in memory to the end, proofs and evaluations included."""
    watch, start = Watch(), Line.start

    def started(planned: Any, **more: Any) -> Line:
        line = start(planned, **more)
        watch.on(line.family.towers["photo"])
        watch.ready = time.perf_counter()
        return line

    Line.start = started  # type: ignore[method-assign]
    torch.set_num_threads(int(job["threads"]))
    run = Path(job["folder"]) / "run"
    result = multitune.train(recipe(job), run=run)
    ended = time.perf_counter()
    events = map(json.loads, (run / "events.jsonl").read_text("utf-8").splitlines())
    return {
        "seconds": ended - watch.ready,
        "tower_seconds": watch.seconds,
        "tower_calls": watch.calls,
        "hits": result.figures.get("features/hits", 0.0),
        "encoded": result.figures.get("features/encoded", 0.0),
        "bytes": result.figures.get("features/bytes", 0.0),
        "losses": [event["value"] for event in events if event.get("name") == "train/loss"],
        "accuracy": result.figures.get("test/exact_match", result.figures.get("test/loss", 0.0)),
        "figures": {name: value for name, value in result.figures.items() if name.startswith("test/")},
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measured(json.loads(Path(sys.argv[1]).read_text("utf-8")))), "utf-8")
