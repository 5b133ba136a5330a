"""A head, then block after block from the top down: four phases of three epochs, beside Lightning's BaseFinetuning.

The pictures and the tower of `frozen`, at a constant rate. Here each phase runs what it leaves frozen once a row; the trainer runs it
once a row and epoch. `--quick`: 256 pictures, one repeat; nothing is computed from fewer epochs, since no two phases take the same time.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.beside import Wanted, answers, cleared, judged, ratio, table, tell
from benchmarks.pictures.sides import OURS, QUICK, SCALE, agrees, head, job, lightning, of_trainers, ours, scored

STARTS = (3, 6, 9)
EPOCHS = 12
RATE = 1e-3
REPEATS = 3
WANTED = (Wanted("speedup", at_least=2), Wanted("agree", at_least=1), Wanted("hits", at_most=0))
COLUMNS = ("accuracy", "memory", "hits", "process_seconds")


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """Figures `speedup`, `agree`, `hits`, `memory`; whether all are as wanted.

    Raises: UserError if a peer cannot be installed; Fault if a side fails.
    """
    run = cleared(run, fresh=fresh)
    asked = job(QUICK if quick else SCALE, starts=STARTS, lr=RATE)
    repeats = 1 if quick else REPEATS
    found = scored(answers(run, [ours(asked, EPOCHS), lightning(EPOCHS)], asked, repeats=repeats), asked)
    (trainer,) = of_trainers(found)
    compared, held = agrees(found, [trainer], at=f"{EPOCHS} epochs")
    figures = {
        "speedup": ratio(found, "seconds", trainer, OURS),
        "memory": ratio(found, "memory", OURS, trainer),
        "hits": max(float(answer["hits"]) for answer in found[OURS]),
        "agree": float(held),
        "extrapolated": 0.0,
    }
    shown, met = judged(figures, WANTED)
    about = [
        f"\nThe head, then a block more at epochs {', '.join(map(str, STARTS))} of {EPOCHS}\n",
        *table(found, COLUMNS, first="seconds"),
    ]
    tell(run, [*head(repeats=repeats, size=QUICK if quick else SCALE), *about, "\nAccuracy on the held-out rows\n", *compared, "", *shown])
    return figures, met
