"""Our side: `python -m benchmarks.contrastive.ours JOB ANSWER`. The job names `batch`, `micro` (0: undivided) and `allocator`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import multitune
from benchmarks.beside import peak_bytes, resident_bytes
from multitune.tuning.events import read
from multitune.verbs.train.line import Line


def recipe(job: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a job: everything moves but the scale, which the peer holds fixed too."""
    train = {name: job[name] for name in ("steps", "lr", "weight_decay", "betas", "eps", "clip_norm", "allocator")}
    train |= {"batch_size": job["batch"], "micro_batch": job["micro"], "schedule": "constant", "warmup": 0}
    train |= {"threads": job["threads"], "workers": 0, "device": "cpu", "checkpoint_every": job["steps"]}
    return {
        "name": "contrastive",
        "seed": job["seed"],
        "task": "retrieval",
        "data": {
            "source": {"name": "table", "path": job["table"]},
            "parts": {"image": "image", "caption": "text"},
            "split": {"train": 1.0, "valid": 0.0, "test": 0.0},
        },
        "model": {"name": "dual_encoder", "pretrained": job["model"]},
        "strategy": [{"pattern": "*"}, {"pattern": "scale", "rate": 0}],
        "train": train,
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }


def main() -> None:
    """Train; seconds a step, of those after the first, and bytes at most above what was there before it."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    start, before = Line.start, [0]

    def started(planned: Any, **more: Any) -> Line:
        line = start(planned, **more)
        before[0] = resident_bytes()
        return line

    Line.start = started  # type: ignore[method-assign]
    result = multitune.train(recipe(job), run=Path(job["folder"]) / "run")
    told = read(result.paths["run"] / "events.jsonl")
    ended = {event["step"]: event["seconds"] for event in told if event["name"] == "train/loss"}
    waited = sum(event["value"] for event in told if event["name"] == "train/wait_seconds" and event["step"] > 1)
    steps = job["steps"] - 1
    answer = {
        "seconds": (ended[job["steps"]] - ended[1]) / steps,
        "wait": waited / steps,
        "growth": peak_bytes() - before[0],
        "losses": [event["value"] for event in told if event["name"] == "train/loss"],
    }
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
