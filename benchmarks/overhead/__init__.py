"""What a step costs beside the model: one of about 10,000 parameters, trained by us and by HF Trainer, steps per second side by side.

Both train the very same torch module (a text transformer of one block and its head, made from one seed), on the same rows, in batches of 8,
by fused AdamW, with a linear schedule and clipping. The peer has its rows tokenized and padded beforehand, as tensors. Seconds are those
between step `FROM` and the last, so no side's start counts. `agree`: before any step, both give the same loss and the same gradient's norm
for the same rows, to 1e-5. Ours also writes every step into `events.jsonl`, as any run does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.beside import Found, Side, Wanted, answers, cleared, judged, machine, median, ratio, table, tell
from multitune.core.randomness import generator

OURS, PEER = "multitune", "hf-trainer"
SIDES = (Side(OURS, ("-m", "benchmarks.overhead.ours")), Side(PEER, ("-m", "benchmarks.overhead.hf_trainer")))
WANTED = (Wanted("speedup", at_least=1.5), Wanted("agree", at_least=1.0))
WORDS = ("circle", "square", "star", "cross")
COLOURS = ("red", "green", "blue", "yellow")
TOLERANCE = 1e-5
ROWS, BATCH, FROM = 512, 8, 200
STEPS, QUICK_STEPS = 4_000, 2_000
REPEATS, QUICK_REPEATS = 5, 3


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """`speedup` (our steps per second over the peer's), steps per second of both, microseconds per step, `agree`.

    Raises: Fault if a side fails.
    """
    run = cleared(run, fresh=fresh)
    steps, repeats = (QUICK_STEPS, QUICK_REPEATS) if quick else (STEPS, REPEATS)
    rows = run / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in made(ROWS)), "utf-8")
    job = {"recipe": recipe(rows, steps), "rows": str(rows), "from": FROM, "steps": steps, "batch": BATCH}
    found = answers(run, SIDES, job, repeats=repeats)
    figures = summary(found)
    lines, ok = judged(figures, WANTED)
    tell(run, [*lines, "", *table(found, ("parameters", "first_loss"), first="seconds_per_step"), "", machine()])
    return figures, ok


def summary(found: Found) -> dict[str, float]:
    """The figures of what both sides answered."""
    ours, theirs = found[OURS][0], found[PEER][0]
    apart = max(abs(ours[name] - theirs[name]) / abs(theirs[name]) for name in ("first_loss", "first_norm"))
    return {
        "speedup": ratio(found, "seconds_per_step", PEER, OURS),
        "steps_per_second": 1 / median(found[OURS], "seconds_per_step"),
        "steps_per_second_peer": 1 / median(found[PEER], "seconds_per_step"),
        "parameters": float(ours["parameters"]),
        "apart": apart,
        "agree": float(apart <= TOLERANCE and ours["parameters"] == theirs["parameters"]),
    }


def made(number: int) -> list[dict[str, str]]:
    """Rows of eight words, of which one says the class."""
    draw = generator("overhead")
    rows: list[dict[str, str]] = []
    for place in range(number):
        shape = int(draw.integers(len(WORDS)))
        words = [COLOURS[int(draw.integers(len(COLOURS)))] for _ in range(7)]
        words.insert(int(draw.integers(8)), WORDS[shape])
        rows.append({"id": str(place), "text": " ".join(words), "label": WORDS[shape]})
    return rows


def recipe(rows: Path, steps: int) -> dict[str, Any]:
    """The recipe of our side; the peer's module is that of its plan."""
    tower = {"name": "text_transformer", "depth": 1, "width": 12, "heads": 2, "max_length": 16}
    return {
        "name": "overhead",
        "task": "classification",
        "data": {
            "source": {"name": "table", "path": str(rows)},
            "parts": {"text": "text", "label": "category"},
            "answers": ["label"],
            "split": {"train": 0.9, "valid": 0.0, "test": 0.1},
        },
        "model": {"name": "fusion_encoder", "towers": {"text": tower}},
        "strategy": "full",
        "train": {
            "steps": steps,
            "batch_size": BATCH,
            "lr": 1e-3,
            "schedule": "linear",
            "warmup": 0,
            "weight_decay": 0.01,
            "betas": [0.9, 0.999],
            "workers": 0,
            "device": "cpu",
            "threads": 1,
            "evaluate_every": steps,
        },
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }
