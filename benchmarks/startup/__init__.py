"""From the start of the process to the end of the first optimizer step, on 100,000 rows that name 64 pictures.

Three programs do the same: read a table, find a class for every row, make a ViT of four blocks from its config with a new head, take one
step on 32 rows, each in its own order. `bare` is torch and Transformers by hand and checks nothing; `hf-trainer` is the guide. Ours
makes its whole plan, and checks every row and file. A table that we read before is kept between runs: a first time stands in `first`.
Each is a script of its own, which imports nothing of the benchmark; our package is compiled before, as an installed one is.
"""

from __future__ import annotations

import compileall
import csv
from pathlib import Path

import numpy as np
from PIL import Image

import multitune
from benchmarks.beside import Side, Wanted, answers, cleared, judged, machine, median, ratio, table, tell

OURS, PEER, BARE = "multitune", "hf-trainer", "bare"
HOME = Path(__file__).parent
SIDES = tuple(Side(name, (str(HOME / f"{file}.py"),)) for name, file in ((OURS, "ours"), (PEER, "hf_trainer"), (BARE, "bare")))
WANTED = (Wanted("share", at_most=0.8), Wanted("limit", at_most=1.0))
ROWS, FILES, CLASSES, BATCH = 100_000, 64, 10, 32
OVER_BARE = 1.15


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """`share` of the peer's time, `speedup` over it, `limit` (our time over 1.15 times the bare script's), seconds of all.

    `share_cpu`, `limit_cpu`: the same of the CPU time until then, which other work on the machine troubles less.

    Raises: Fault if a side fails.
    """
    run = cleared(run, fresh=fresh)
    compileall.compile_dir(Path(multitune.__file__).parent, quiet=2)
    job = {"table": str(_written(run)), "batch": BATCH, "classes": CLASSES}
    found = answers(run, SIDES, job, repeats=3 if quick else 7)
    timed = {side: [{**answer, "seconds": answer["stepped"] - answer["launched"]} for answer in repeats] for side, repeats in found.items()}
    share = ratio(timed, "seconds", OURS, PEER)
    figures = {"share": share, "speedup": 1 / share, "limit": ratio(timed, "seconds", OURS, BARE) / OVER_BARE}
    figures |= {"share_cpu": ratio(timed, "cpu", OURS, PEER), "limit_cpu": ratio(timed, "cpu", OURS, BARE) / OVER_BARE}
    figures |= {f"seconds_{side.replace('-', '_')}": median(repeats, "seconds") for side, repeats in timed.items()}
    figures["first"] = float(timed[OURS][0]["seconds"])
    lines, ok = judged(figures, WANTED)
    tell(run, [*lines, "", *table(timed, ("peak_bytes",), first="seconds"), "", machine()])
    return figures, ok


def _written(run: Path) -> Path:
    """The table and its pictures."""
    folder = run / "rows"
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for place in range(FILES):
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{place}.png")
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "image", "label"))
        writer.writerows((f"row-{place}", f"{place % FILES}.png", f"class-{place % CLASSES}") for place in range(ROWS))
    return folder / "rows.csv"
