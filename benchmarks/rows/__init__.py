"""What a million rows cost in memory: the same short run on tables of 1,000 and of 1,000,000 rows, as CSV, JSON lines and Parquet.

`memory`: by how many MB the peak of private memory grows, the most of the three formats; `memory_csv` and its like are those of each.
Private is what no file stands behind: what is mapped from the cache is the system's to take back. The cache is empty before each run, so
that reading the table into it counts. `seconds`: the longest of the whole runs on a million rows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.beside import Side, Wanted, answers, cleared, judged, machine, median, table, tell, versions

FEW, MANY = 1_000, 1_000_000
FORMATS = ("csv", "jsonl", "parquet")
MOST_MB = 64.0
HELD_OUT = 200  # rows of the validation split, and of the test split
WORDS = ("circle", "square", "star", "cross", "heart", "ring", "moon", "leaf")
CHUNK, STEPS = 50_000, 20
WANTED = (Wanted("memory", at_most=MOST_MB),)


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """`memory` in MB, that of each format, and `seconds`.

    Raises: Fault if a run fails.
    """
    folder = cleared(run, fresh=fresh)
    grown: dict[str, float] = {}
    seconds: list[float] = []
    lines: list[str] = [f"{machine()}. {versions()}."]
    for form in FORMATS:
        sides = tuple(_side(folder, form, rows) for rows in (FEW, MANY))
        found = answers(folder / form, sides, {"steps": STEPS}, repeats=1 if quick else 3)
        few, many = (median(found[side.name], "private") for side in sides)
        grown[f"memory_{form}"] = (many - few) / 2**20
        seconds.append(median(found[sides[1].name], "seconds"))
        lines += ["", form, "", *table(found, ("seconds", "mapped"), first="private")]
    figures = {"memory": max(grown.values()), **grown, "seconds": max(seconds)}
    told, met = judged(figures, WANTED)
    tell(folder, [*lines, "", *told])
    return figures, met


def _side(folder: Path, form: str, rows: int) -> Side:
    path = folder / "tables" / f"{rows}.{form}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, rows)
    return Side(f"{rows}-{form}", ("-m", "benchmarks.rows.ours"), job={"table": str(path), "share": HELD_OUT / rows})


def made(rows: int) -> Iterator[dict[str, str]]:
    """Rows of eight words, of which the first says the class."""
    for place in range(rows):
        words = (WORDS[(place >> shift) % len(WORDS)] for shift in (0, 3, 6, 9, 12, 15, 1, 2))
        yield {"id": f"row-{place}", "text": " ".join(words), "label": WORDS[place % len(WORDS)]}


def write(path: Path, rows: int) -> None:
    """A table of these rows in the format that its ending says."""
    each, draft = made(rows), path.with_name(f"draft-{path.name}")
    if path.suffix == ".parquet":
        schema = pa.schema([(name, pa.string()) for name in ("id", "text", "label")])
        with pq.ParquetWriter(draft, schema) as writer:
            while chunk := list(islice(each, CHUNK)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
    else:
        with draft.open("w", encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                cells = csv.writer(file)
                cells.writerow(("id", "text", "label"))
                cells.writerows(row.values() for row in each)
            else:
                file.writelines(json.dumps(row) + "\n" for row in each)
    draft.rename(path)
