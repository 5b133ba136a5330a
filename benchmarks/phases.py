"""A head, then block after block from the top down: four phases of three epochs, beside Lightning's BaseFinetuning.

The pictures and the tower of `frozen`, at a constant rate. Here each phase runs what it leaves frozen once a row; the trainer runs it
once a row and epoch. Each repeat has a seed of its own, on the same rows. `agree`: 1 where our accuracy over all seeds is no lower than the
trainer's by more than the standard error of the difference, which so few held-out rows leave. `--quick`: 256 pictures, two repeats;
nothing is computed from fewer epochs, since no two phases take the same time.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from benchmarks.beside import Answer, Found, Wanted, answers, cleared, judged, ratio, table, tell
from benchmarks.pictures.sides import LIGHTNING, OURS, QUICK, SCALE, Size, head, job, lightning, ours, scored

STARTS = (3, 6, 9)
EPOCHS = 12
RATE = 1e-3
REPEATS, QUICK_REPEATS = 3, 2
WANTED = (Wanted("speedup", at_least=2), Wanted("agree", at_least=1), Wanted("hits", at_most=0))
COLUMNS = ("accuracy", "memory", "hits", "process_seconds")


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """Figures `speedup`, `agree`, `hits`, `memory`; whether all are as wanted.

    Raises: UserError if a peer cannot be installed; Fault if a side fails.
    """
    run, size, repeats = cleared(run, fresh=fresh), QUICK if quick else SCALE, QUICK_REPEATS if quick else REPEATS
    found = _found(run, size, repeats)
    compared, held = _agrees(found, size.held_out * repeats)
    figures = {
        "speedup": ratio(found, "seconds", LIGHTNING, OURS),
        "memory": ratio(found, "memory", OURS, LIGHTNING),
        "hits": max(float(answer["hits"]) for answer in found[OURS]),
        "agree": float(held),
        "extrapolated": 0.0,
    }
    shown, met = judged(figures, WANTED)
    about = [
        f"\nThe head, then a block more at epochs {', '.join(map(str, STARTS))} of {EPOCHS}\n",
        *table(found, COLUMNS, first="seconds"),
    ]
    tell(run, [*head(repeats=repeats, size=size), *about, "\nAccuracy on the held-out rows\n", *compared, "", *shown])
    return figures, met


def _found(run: Path, size: Size, repeats: int) -> Found:
    """What both sides answered, a seed after the other."""
    found: dict[str, list[Answer]] = {OURS: [], LIGHTNING: []}
    for seed in range(repeats):
        asked = job(size, starts=STARTS, lr=RATE) | {"seed": seed}
        sides = [ours(asked, EPOCHS), lightning(EPOCHS)][:: -1 if seed % 2 else 1]
        for side, given in scored(answers(run / f"seed-{seed}", sides, asked, repeats=1), asked).items():
            found[side] += given
    return found


def _agrees(found: Found, rows: int) -> tuple[list[str], bool]:
    """Whether our mean accuracy is no lower than chance among so many rows lets it be, and the comparison as lines."""
    each = {side: [float(answer["accuracy"]) for answer in given] for side, given in found.items()}
    mine, theirs = statistics.mean(each[OURS]), statistics.mean(each[LIGHTNING])
    error = math.sqrt((mine * (1 - mine) + theirs * (1 - theirs)) / rows)
    held = mine >= theirs - error
    lines = [f"- {side}: {statistics.mean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})" for side, values in each.items()]
    return [*lines, f"- {'no lower' if held else '**lower**'}: apart by {mine - theirs:+.4f}, with a standard error of {error:.4f}"], held
