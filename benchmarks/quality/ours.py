"""Our side of a job: `python -m benchmarks.quality.ours JOB ANSWER [CHANGES]`. A recipe, a run, predictions of the artifact."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import multitune


def recipe(job: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a job; what it does not state is at our defaults."""
    train = {name: job[name] for name in ("steps", "lr", "warmup", "weight_decay", "betas", "eps", "clip_norm")}
    train |= {"batch_size": job["batch"], "schedule": "linear", "threads": 1, "workers": 0, "device": "cpu"}
    made: dict[str, Any] = {
        "name": "quality",
        "seed": job["seed"],
        "data": {"source": {"name": "table", "path": job["splits"]["train"]}, "split": {"train": 1.0, "valid": 0.0, "test": 0.0}},
        "strategy": "full",
        "train": train,
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }
    if job["kind"] == "classification":
        made["task"] = "classification"
        made["data"] |= {"parts": {"image": "image", "label": "category"}, "answers": ["label"]}
        made["model"] = {"name": "fusion_encoder", "towers": {"image": {"pretrained": job["model"], "pool": job["pool"]}}}
    else:
        made["task"] = "retrieval"
        made["data"] |= {"parts": {"query": "text", "document": "text"}}
        tower = {"pretrained": job["model"], "pool": job["pool"]}
        made["model"] = {"name": "dual_encoder", "width": job["width"], "towers": {"query": tower, "document": tower}}
        made["loss"] = {"name": "contrastive", "symmetric": job["symmetric"]}
    return made


def main() -> None:
    """Train, predict every measured row, write the answer."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    job |= json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    out = Path(sys.argv[2])
    trained = multitune.train(recipe(job), run=out.with_suffix(""))
    model = multitune.load(trained.paths["artifact"])
    answer: dict[str, Any] = {"seconds": job["steps"] / trained.figures["train/steps_per_second"]}
    for split in ("test", "elsewhere"):
        rows = [json.loads(line) for line in Path(job["splits"][split]).read_text("utf-8").splitlines()]
        asked = [{name: value for name, value in row.items() if name != "label"} for row in rows]
        said = model.predict(asked)
        if job["kind"] == "classification":
            answer[split] = {one.id: one.answers["label"].value for one in said}
        else:
            file = out.with_name(f"{out.stem}-{split}.safetensors")
            save_file({part: np.stack([one.answers[part].value for one in said]) for part in ("query", "document")}, file)
            answer[split] = str(file)
    out.write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
