"""The sides of the picture benchmarks, what they are asked, and how they are compared."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.beside import Answer, Found, Side, best, extrapolated, machine, median, versions
from benchmarks.beside.running import ROOT
from benchmarks.pictures.drawing import Size, drawn

OURS = "multitune"
HAND = "by-hand"
LIGHTNING = "lightning"
PEERS = ROOT / "benchmarks" / "peers" / "pictures"
BATCH = 32
FEW = 3  # epochs that a trainer runs in the quick form
SCALE = Size()
QUICK = Size(rows=256, held_out=64)


def job(size: Size, *, blocks: int = 0, starts: Sequence[int] = (), lr: float) -> dict[str, Any]:
    """What all sides are asked. blocks: of the tower's last that move; starts: epochs at which its next block begins to move."""
    return {
        **drawn(size),
        "train_rows": size.rows - size.held_out,
        "blocks": blocks,
        "starts": list(starts),
        "batch": BATCH,
        "lr": lr,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "clip_norm": 1.0,
        "seed": 0,
    }


def ours(asked: Mapping[str, Any], epochs: int, *, store: str = "", **more: Any) -> Side:
    """Our side, for so many epochs. store: a folder that outlives the run; by default the store is new and empty, and goes with it."""
    mine = {"epochs": epochs, "store": store, "width": 0, "evaluate_every": -(-asked["train_rows"] // asked["batch"]), **more}
    return Side(OURS, ("-m", "benchmarks.pictures.ours"), job=mine)


def trainers(epochs: int) -> list[Side]:
    """HF Trainer without workers and with two, and Lightning without."""
    return [*(_peer(f"hf-trainer-{workers}", "hf_trainer", epochs, workers) for workers in (0, 2)), lightning(epochs)]


def lightning(epochs: int) -> Side:
    """Lightning, which alone of the trainers opens a tower in phases."""
    return _peer(LIGHTNING, "lightning_fit", epochs, 0)


def by_hand(epochs: int) -> Side:
    """The script that encodes once."""
    return _peer(HAND, "by_hand", epochs, 0)


def _peer(name: str, script: str, epochs: int, workers: int) -> Side:
    overlaid = name == LIGHTNING  # the others run on what our own environment has
    return Side(name, (str(PEERS / f"{script}.py"),), overlaid=overlaid, job={"epochs": epochs, "workers": workers})


def scored(answers: Found, asked: Mapping[str, Any], *, few_of: int = 0) -> dict[str, list[Answer]]:
    """The answers with `accuracy`, by one function. few_of: `seconds` are those of so many epochs, for trainers that ran other ones."""
    rows = [json.loads(line) for line in Path(asked["rows"]).read_text("utf-8").splitlines()]
    truth = {row["id"]: row["label"] for row in rows if row["split"] == "valid"}
    return {side: [_scored(answer, truth, few_of) for answer in repeats] for side, repeats in answers.items()}


def _scored(answer: Answer, truth: Mapping[str, str], few_of: int) -> Answer:
    said = answer["said"]
    assert said.keys() == truth.keys()
    right = statistics.mean(said[row] == label for row, label in truth.items())
    ran = answer.get("epoch_seconds", [])
    seconds = extrapolated(ran, few_of) if few_of and len(ran) > 1 else answer["seconds"]
    return {**{name: value for name, value in answer.items() if name != "said"}, "accuracy": right, "seconds": seconds}


def agrees(found: Found, others: Sequence[str], *, at: str) -> tuple[list[str], bool]:
    """Whether our accuracy is no lower than that of any other, and each comparison as a line."""
    mine = median(found[OURS], "accuracy")
    lines = []
    for other in others:
        theirs = median(found[other], "accuracy")
        lines.append(f"- {at}: {OURS} {mine:.4f}, {other} {theirs:.4f}: {'no lower' if mine >= theirs else '**lower**'}")
    return lines, all(mine >= median(found[other], "accuracy") for other in others)


def of_trainers(found: Found) -> list[str]:
    """The trainers among the sides."""
    return [side for side in found if side not in (OURS, HAND)]


def best_trainer(found: Found) -> str:
    """The trainer that took the fewest seconds."""
    return best(found, "seconds", of_trainers(found))


def head(*, repeats: int, size: Size, few: bool = False) -> list[str]:
    """On what, and on which machine. few: a trainer ran only a few epochs."""
    computed = (
        f"; a trainer's many epochs are computed from its first and the median of {FEW - 1} more, its accuracy is that after {FEW}"
        if few
        else ""
    )
    rows = f"{size.rows} JPEG files of {size.side} px, {size.held_out} of them held out; {repeats} repeat{'s' * (repeats > 1)}{computed}."
    return [rows, "", f"{machine()}; {versions(('lightning',))}."]
