"""Our side of a job: `python -m benchmarks.pictures.ours JOB ANSWER`. A recipe, a run, what its artifact says of the held-out rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

import multitune
from benchmarks.beside import peak_bytes, resident_bytes

LOADED = (torch, transformers.AutoModel, multitune.train, multitune.load)  # before memory is looked at, as on the other sides


def recipe(job: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a job; what it does not state is at our defaults."""
    strategy: dict[str, Any] = {"name": "partial", "blocks": job["blocks"]}
    if job["starts"]:
        shares = [f"{100 * start / job['epochs']:.4f}%" for start in job["starts"]]
        strategy = {"name": "progressive", "depth": len(shares), "starts": shares}
    train = {name: job[name] for name in ("epochs", "lr", "weight_decay", "betas", "eps", "clip_norm", "threads")}
    return {
        "name": "pictures",
        "seed": job["seed"],
        "task": "classification",
        "data": {
            "source": {"name": "table", "path": job["rows"]},
            "parts": {"image": "image", "label": "category"},
            "answers": ["label"],
            "split": {"column": "split"},
        },
        "model": {
            "name": "fusion_encoder",
            "towers": {"image": {"pretrained": job["model"], "pool": "first"}},
            "width": job["width"],
        },
        "strategy": strategy,
        "features": {"store": "auto", "folder": job["store"] or str(Path(job["folder"]) / "store")},
        "train": train
        | {
            "batch_size": job["batch"],
            "schedule": "constant" if job["starts"] else "linear",
            "warmup": 0,
            "evaluate_every": job["evaluate_every"],
            "device": "cpu",
        },
        "evaluate": {"baselines": False},
    }


def main() -> None:
    """Train, write the numbers, and what the artifact says of each held-out row."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    before = resident_bytes()
    result = multitune.train(recipe(job), run=Path(job["folder"]) / "run")
    figures = result.figures
    answer: dict[str, Any] = {
        "seconds": figures["train/seconds"],
        "memory": peak_bytes() - before,
        "verb_seconds": figures["seconds"],
        "hits": figures.get("features/hits", 0.0),
        "encoded": figures.get("features/encoded", 0.0),
    }
    rows = [json.loads(line) for line in Path(job["rows"]).read_text("utf-8").splitlines()]
    held_out = [row for row in rows if row["split"] == "valid"]
    pictures = [{"id": row["id"], "image": str(Path(job["rows"]).parent / row["image"])} for row in held_out]
    said = multitune.load(result.paths["artifact"]).predict(pictures)
    answer["said"] = {row["id"]: one.answers["label"].value for row, one in zip(held_out, said, strict=True)}
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
