"""The top 2 of 12 blocks and a head move, for 10 epochs: what lies below runs once a row here, once a row and epoch in the trainers.

The pictures, the tower and the sides of `frozen`. `limit`: our seconds over those of a script by hand that runs the lower 10 blocks once
over all rows and then trains the top alone. `--quick` as there.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.beside import Wanted, answers, cleared, judged, ratio, table, tell
from benchmarks.pictures.sides import (
    FEW,
    HAND,
    OURS,
    QUICK,
    SCALE,
    agrees,
    best_trainer,
    by_hand,
    head,
    job,
    of_trainers,
    ours,
    scored,
    trainers,
)

EPOCHS = 10
BLOCKS = 2
RATE = 1e-3
REPEATS = 3
WANTED = (
    Wanted("speedup", at_least=2.4),
    Wanted("limit", at_most=1.15),
    Wanted("agree", at_least=1),
    Wanted("hits", at_most=0),
)
COLUMNS = ("accuracy", "memory", "hits", "process_seconds")


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """Figures `speedup`, `limit`, `agree`, `hits`, `memory`; whether all are as wanted.

    Raises: UserError if a peer cannot be installed; Fault if a side fails.
    """
    run = cleared(run, fresh=fresh)
    asked = job(QUICK if quick else SCALE, blocks=BLOCKS, lr=RATE)
    repeats, ran = (1, FEW) if quick else (REPEATS, EPOCHS)
    sides = [ours(asked, EPOCHS), *trainers(ran), by_hand(EPOCHS)]
    answered = answers(run, sides, asked, repeats=repeats)
    found = scored(answered, asked, few_of=EPOCHS if quick else 0)
    as_many = scored(answers(run / str(FEW), [ours(asked, FEW)], asked, repeats=1), asked) if quick else found
    compared, held = agrees({**found, OURS: as_many[OURS]}, of_trainers(found), at=f"{ran} epochs")
    beside, beside_held = agrees(found, [HAND], at=f"{EPOCHS} epochs")
    figures = {
        "speedup": ratio(found, "seconds", best_trainer(found), OURS),
        "limit": ratio(found, "seconds", OURS, HAND),
        "memory": ratio(found, "memory", OURS, best_trainer(found)),
        "hits": max(float(answer["hits"]) for answer in found[OURS]),
        "agree": float(held and beside_held),
        "extrapolated": float(quick),
    }
    shown, met = judged(figures, WANTED)
    about = [f"\nThe top {BLOCKS} blocks and the head, {EPOCHS} epochs\n", *table(found, COLUMNS, first="seconds")]
    tell(
        run,
        [
            *head(repeats=repeats, size=QUICK if quick else SCALE, few=quick),
            *about,
            "\nAccuracy on the held-out rows\n",
            *compared,
            *beside,
            "",
            *shown,
        ],
    )
    return figures, met
