"""Our side: `python -m benchmarks.padding.ours JOB ANSWER`. The job names the `file` of rows and the `bucket`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import multitune
from multitune.core.ledger import Ledger
from multitune.core.recipe import make_recipe
from multitune.data.bucketing.lengths import measured
from multitune.verbs.plan import make_plan


def recipe(job: Mapping[str, Any], *, file: str, bucket: Mapping[str, Any] | None) -> dict[str, Any]:
    """The recipe of a job; what it does not state is at our defaults."""
    train = {name: job[name] for name in ("steps", "lr", "weight_decay", "betas", "eps", "clip_norm")}
    train |= {"batch_size": job["batch"], "schedule": "linear", "warmup": 0, "threads": job["threads"], "workers": 0, "device": "cpu"}
    return {
        "name": "padding",
        "seed": job["seed"],
        "task": "classification",
        "data": {
            "source": {"name": "table", "path": job[file]},
            "parts": {"text": "text", "label": "category"},
            "answers": ["label"],
            "split": {"train": 1.0, "valid": 0.0, "test": 0.0},
        },
        "model": {"name": "fusion_encoder", "towers": {"text": {"pretrained": job["model"], "pool": "first"}}},
        "strategy": "full",
        "train": train | ({"bucket": bucket} if bucket else {}),
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }


def main() -> None:
    """Measure lengths into an empty cache, train, and tell the seconds of both."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    folder = Path(job["folder"])
    os.environ["MULTITUNE_CACHE"] = str(folder / "cache")
    asked = recipe(job, file=job["file"], bucket=job["bucket"])
    planned = make_plan(make_recipe(asked), Ledger())
    rows = planned.data.examples["train"]
    started = time.perf_counter()
    measured(rows, planned.model.blueprint.preparer, range(len(rows)))
    lengths = time.perf_counter() - started
    multitune.train(asked, run=folder / "run")
    events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text("utf-8").splitlines()[1:]]
    steps = max(event["seconds"] for event in events if event["name"] == "train/loss")
    real = job["tokens"][job["file"]]
    answer = {
        "seconds": steps + lengths,
        "seconds_lengths": lengths,
        "tokens": real,
        "tokens_per_second": real / (steps + lengths),
        "padding": planned.plan["train.padding"],
    }
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
