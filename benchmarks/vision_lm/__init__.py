"""What keeping the features of a frozen vision tower saves: a small LLaVA-like model, its projector and LoRA moving, five epochs.

Three runs in turn, each in a process of its own: without a feature store, with an empty one, and over one that was filled before.
`saved`: the seconds that the store saves, as a share of those that the vision tower's own forwards take in the run without; proving the
cut and writing shards count. Without a store the tower runs in every epoch and every evaluation, with it once: of its forwards at most 1
- 1 / epochs can be saved, and the preparing of pictures beside them. `again`: the same of the run over a filled store. `agree`: 1 where
the loss of every step is the same to 1e-5, and so is every figure of the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.beside import Answer, Side, Wanted, answers, cleared, judged, median, table, tell
from benchmarks.vision_lm.model import write_model, write_rows

OURS = ("-m", "benchmarks.vision_lm.ours")
LIKE = 1e-5
SAVED = 0.85
EPOCHS, BATCH = 5, 8
ROWS, QUICK_ROWS = 512, 256
REPEATS = 3


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """`saved`, `again`, `share` (of the vision tower, in the run without), `hits` (rows that were there before: 0), `agree`."""
    folder, rows = cleared(run, fresh=fresh), QUICK_ROWS if quick else ROWS
    model, pictures = folder / "model", folder / f"pictures-{rows}"
    if not model.is_dir():
        write_model(model)
    if not pictures.is_dir():
        write_rows(pictures, rows)
    train_rows = sum(place % 8 > 1 for place in range(rows))
    job = {"model": str(model), "table": str(pictures / "rows.csv"), "train_rows": train_rows, "epochs": EPOCHS, "batch_size": BATCH}
    kept = str(folder / f"store-{rows}")
    sides = (
        Side("without", OURS, job={"store": "off", "features": ""}),
        Side("store", OURS, job={"store": "on", "features": ""}),
        Side("filled", OURS, job={"store": "on", "features": kept}),
    )
    repeats = 1 if quick else REPEATS
    answers(folder / "first", sides[2:], job, repeats=1)
    found = answers(folder, sides, job, repeats=repeats)
    tower, plain = median(found["without"], "tower_seconds"), median(found["without"], "seconds")
    figures = {
        "saved": (plain - median(found["store"], "seconds")) / tower,
        "again": (plain - median(found["filled"], "seconds")) / tower,
        "share": tower / plain,
        "speedup": plain / median(found["store"], "seconds"),
        "hits": median(found["store"], "hits"),
        "agree": float(all(_agree(found["without"][0], one) for side in found.values() for one in side)),
    }
    lines, ok = judged(figures, [Wanted("saved", at_least=SAVED), Wanted("hits", at_most=0), Wanted("agree", at_least=1)])
    shown = table(found, ("seconds", "tower_seconds", "tower_calls", "encoded", "bytes", "peak_bytes"), first="seconds")
    tell(folder, [*shown, "", *lines])
    return figures, ok


def _agree(one: Answer, other: Answer) -> bool:
    pairs: Sequence[tuple[float, float]] = [*zip(one["losses"], other["losses"], strict=True)]
    close = all(abs(left - right) <= LIKE * abs(left) for left, right in pairs)
    return (
        bool(pairs)
        and close
        and one["figures"].keys() == other["figures"].keys()
        and all(abs(value - other["figures"][name]) <= LIKE * max(abs(value), 1.0) for name, value in one["figures"].items())
    )
