"""Run one arm of one setting in a process of its own, a line of JSON for each seed, so that memory is the arm's own.

python -m benchmarks.strategies.worker SETTING ARM FOLDER SEED [SEED ...]
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

import multitune
from benchmarks.strategies.arms import ARMS, SETTINGS, Arm, Setting, recipe

KIB = 1024
LOADED = (torch, transformers.AutoModel, peft.LoraConfig)  # before memory is looked at: what they take is no arm's


def main(arguments: Sequence[str]) -> int:
    """Print the figures of each seed: accuracy, elsewhere (the other domain), seconds (of the processor, for a run from
    recipe to artifact), moved (parameters), memory (bytes)."""
    setting, arm, folder = SETTINGS[arguments[0]], ARMS[arguments[1]], Path(arguments[2])
    for seed in map(int, arguments[3:]):
        print(json.dumps({"seed": seed, **one(setting, arm, folder, seed)}), flush=True)
    return 0


def one(setting: Setting, arm: Arm, folder: Path, seed: int) -> dict[str, float]:
    """The figures of one seed, kept beside its run: asked again, it answers at once."""
    kept = folder / setting.name / arm.name / f"{seed}.json"
    if kept.is_file():
        return json.loads(kept.read_text("utf-8"))
    before, began = _resident(), time.process_time()
    tried = [_train(setting, arm, folder, seed, rate) for rate in arm.rates]
    best = max(tried, key=lambda result: result.figures["valid/accuracy"])
    spent = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB - before
    figures = {
        "accuracy": best.figures["test/accuracy"],
        "seconds": spent / len(tried),
        "moved": best.figures["parameters_moved"],
        "memory": float(grown),
    }
    if setting.elsewhere:
        figures["elsewhere"] = _elsewhere(setting, best.paths["artifact"])
    kept.write_text(json.dumps(figures), "utf-8")
    return figures


def _train(setting: Setting, arm: Arm, folder: Path, seed: int, rate: float) -> Any:
    run = folder / setting.name / arm.name / f"{seed}-{rate:g}"
    return multitune.train(recipe(setting, arm, seed=seed, rate=rate), run=run)


def _elsewhere(setting: Setting, artifact: Path) -> float:
    overrides = ["evaluate.baselines=false", "evaluate.ablations=false", "evaluate.intervals=0"]
    return multitune.evaluate(artifact, data=dict(setting.elsewhere), overrides=overrides).figures["data/accuracy"]


def _resident() -> int:
    """Bytes of this process in memory now, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
