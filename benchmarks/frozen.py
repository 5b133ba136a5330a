"""A frozen tower under a head, over many epochs: the tower runs once a row here, once a row and epoch in the trainers.

ViT-Ti's size at 224 px, 512 JPEG files (a quarter held out and measured after each epoch), batches of 32, 1, 5 and 20 epochs. Beside
HF Trainer (without workers and with two), Lightning, and a script by hand that encodes once and fits a logistic regression. Seconds are
those of training: from the first encode or step to the last evaluation; ours has a new, empty store and counts the proof of the cut.

`speedup`: the best trainer's seconds over ours at 20 epochs; `limit`: ours over the script's. `--again`: a second run, another head and
rate, on the store that a first one filled, five times. `--quick`: 256 pictures, one repeat; a trainer runs three epochs, from which its
many are computed (`extrapolated`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.beside import Found, Wanted, answers, cleared, judged, median, ratio, table, tell
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

EPOCHS = (20, 5, 1)  # the largest first: its figures have plain names
RATE = 1e-2
OTHER_RATE, OTHER_WIDTH = 4e-3, 64
REPEATS, REPEATS_AGAIN = 3, 5  # a second run takes a second: one of them would say little
WANTED = (
    Wanted("speedup", at_least=13),
    Wanted("speedup_5", at_least=3.5),
    Wanted("speedup_1", at_least=1),
    Wanted("limit", at_most=1.1),
    Wanted("agree", at_least=1),
    Wanted("hits", at_most=0),
)
WANTED_AGAIN = (Wanted("speedup", at_least=100), Wanted("agree", at_least=1), Wanted("hits", at_least=1))
COLUMNS = ("accuracy", "memory", "hits", "process_seconds")


def measure(run: Path, *, fresh: bool, quick: bool = False, again: bool = False) -> tuple[dict[str, float], bool]:
    """Figures `speedup`, `limit`, `agree`, `hits`, `memory` (the growth of ours over the best trainer's); whether all are as wanted.

    Raises: UserError if a peer cannot be installed; Fault if a side fails.
    """
    run = cleared(run, fresh=fresh)
    asked = job(QUICK if quick else SCALE, lr=RATE)
    repeats = 1 if quick else REPEATS
    found = {epochs: beside(run, asked, epochs, quick=quick, repeats=repeats) for epochs in (EPOCHS[:1] if again else EPOCHS)}
    lines = head(repeats=repeats, size=QUICK if quick else SCALE, few=quick)
    for epochs, sides in found.items():
        lines += [f"\n{epochs} epoch{'s' * (epochs > 1)}\n", *table(sides, COLUMNS, first="seconds")]
    if again:
        second = _second(run, asked, found[EPOCHS[0]])
        lines += ["\nA second run, another head and rate, on the store of a first one\n", *table(second, COLUMNS, first="seconds")]
        figures, compared = _figures_again(second)
    else:
        figures, compared = _figures(run, asked, found, quick)
    shown, met = judged(figures | {"extrapolated": float(quick)}, WANTED_AGAIN if again else WANTED)
    tell(run, [*lines, "\nAccuracy on the held-out rows\n", *compared, "", *shown])
    return figures | {"extrapolated": float(quick)}, met


def beside(run: Path, asked: dict[str, Any], epochs: int, *, quick: bool, repeats: int) -> dict[str, Any]:
    """All sides for so many epochs, in turn; in the quick form the trainers once, for a few epochs."""
    if not quick:
        sides = [ours(asked, epochs), *trainers(epochs), by_hand(epochs)]
        return scored(answers(run / str(epochs), sides, asked, repeats=repeats), asked)
    few = answers(run / "few", [*trainers(FEW), by_hand(epochs=EPOCHS[0])], asked, repeats=repeats)
    mine = answers(run / str(epochs), [ours(asked, epochs)], asked, repeats=repeats)
    return scored({**mine, **few}, asked, few_of=epochs)


def _figures(run: Path, asked: dict[str, Any], found: dict[int, Any], quick: bool) -> tuple[dict[str, float], list[str]]:
    figures: dict[str, float] = {}
    for epochs, sides in found.items():
        figures["speedup" if epochs == EPOCHS[0] else f"speedup_{epochs}"] = ratio(sides, "seconds", best_trainer(sides), OURS)
    largest = found[EPOCHS[0]]
    figures["limit"] = ratio(largest, "seconds", OURS, HAND)
    figures["memory"] = ratio(largest, "memory", OURS, best_trainer(largest))
    figures["hits"] = max(float(answer["hits"]) for sides in found.values() for answer in sides[OURS])
    if quick:
        few = scored(answers(run / str(FEW), [ours(asked, FEW)], asked, repeats=1), asked)
        judgements = [
            agrees({**largest, **few}, of_trainers(largest), at=f"{FEW} epochs"),
            agrees(largest, [HAND], at=f"{EPOCHS[0]} epochs"),
        ]
    else:
        judgements = [
            agrees(sides, [*of_trainers(sides), *([HAND] if epochs == EPOCHS[0] else [])], at=f"{epochs} epochs")
            for epochs, sides in found.items()
        ]
    figures["agree"] = float(all(held for _, held in judgements))
    return figures, [line for lines, _ in judgements for line in lines]


def _second(run: Path, asked: dict[str, Any], first: Found) -> dict[str, Any]:
    """The trainers as they were, and our second run on the store that a first one filled, once for all repeats."""
    store = str(run / "store")
    answers(run / "filling", [ours(asked, EPOCHS[0], store=store)], asked, repeats=1)
    other = ours(asked, EPOCHS[0], store=store, width=OTHER_WIDTH, lr=OTHER_RATE)
    mine = answers(run / "again", [other], asked, repeats=REPEATS_AGAIN)
    return {**scored(mine, asked), **{side: first[side] for side in of_trainers(first)}}


def _figures_again(second: Found) -> tuple[dict[str, float], list[str]]:
    lines, held = agrees(second, of_trainers(second), at=f"{EPOCHS[0]} epochs")
    figures = {"speedup": ratio(second, "seconds", best_trainer(second), OURS), "agree": float(held), "hits": median(second[OURS], "hits")}
    return figures, lines
