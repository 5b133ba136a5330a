"""Known damage: cut pictures, empty sounds, swapped and empty captions, duplicates over scenes; and the list of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multitune.core.randomness import generator
from multitune.data.sources.chimes.sound import wav

PLANTED = "planted.json"
CAPTIONS = ("caption", "image_caption", "audio_caption")
SHOWN = ("shape", "colour", "timbre", "contour", "shape_group", "contour_group", "pairing", "agree")

Row = dict[str, Any]


def plant(folder: Path, rows: list[Row], *, share: float, seed: int) -> list[Row]:
    """Damage `round(share * rows)` rows in turn by each kind, and list them in `planted.json`; returns the rows as damaged.

    An entry of the list has `id` and `kind`, and for a swap or a duplicate the other row's id. Two rows that swapped
    their captions count as two; what a duplicate copies stays whole.
    """
    rng = generator("chimes", seed, "damage")
    damaged = [dict(row) for row in rows]
    waiting = [int(place) for place in rng.permutation(len(rows))]
    media = [kind for kind, part in (("cut_image", "image"), ("empty_audio", "audio")) if rows and part in rows[0]]
    kinds = [*media, "swapped_caption", "empty_caption", "duplicate"]
    planted: list[dict[str, str]] = []
    wanted, turn = round(share * len(rows)), 0
    while len(planted) < wanted and waiting:
        kind, place = kinds[turn % len(kinds)], waiting.pop()
        turn += 1
        other = _partner(kind, place, rows, waiting)
        if other is None and kind in ("swapped_caption", "duplicate"):
            kind = "empty_caption"
        planted += _damage(folder, damaged, kind, place, other, rng)
        if other is not None:
            waiting.remove(other)
    planted.sort(key=lambda entry: entry["id"])
    (folder / PLANTED).write_text(json.dumps(planted, indent=1) + "\n", "utf-8")
    return damaged


def _partner(kind: str, place: int, rows: list[Row], waiting: list[int]) -> int | None:
    """A whole row to swap captions with (nothing in common) or to copy (another scene, same pairing, best another split)."""
    row = rows[place]
    if kind == "swapped_caption":
        differs = [i for i in waiting if all(rows[i][name] != row[name] for name in ("shape", "colour", "timbre", "contour"))]
        return differs[-1] if differs else None
    if kind == "duplicate":
        alike = [i for i in waiting if rows[i]["group"] != row["group"] and rows[i]["pairing"] == row["pairing"]]
        leaks = [i for i in alike if rows[i]["split"] != row["split"]]
        found = leaks or alike
        return found[-1] if found else None
    return None


def _damage(folder: Path, rows: list[Row], kind: str, place: int, other: int | None, rng: np.random.Generator) -> list[dict[str, str]]:
    row = rows[place]
    entry = {"id": str(row["id"]), "kind": kind}
    if kind == "cut_image":
        file = folder / row["image"]
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * rng.uniform(0.2, 0.8))])
    elif kind == "empty_audio":
        (folder / row["audio"]).write_bytes(wav(np.zeros(0, np.float32)))
    elif kind == "empty_caption":
        row.update(dict.fromkeys(CAPTIONS, ""))
    elif other is not None and kind == "swapped_caption":
        partner = rows[other]
        mine, theirs = _pick(row, CAPTIONS), _pick(partner, CAPTIONS)
        row.update(theirs)
        partner.update(mine)
        return [entry | {"other": str(partner["id"])}, {"id": str(partner["id"]), "kind": kind, "other": str(row["id"])}]
    elif other is not None:
        source = rows[other]
        row.update(_pick(source, CAPTIONS + SHOWN))
        for part in ("image", "audio"):
            if part in row:
                shutil.copyfile(folder / source[part], folder / row[part])
        return [entry | {"other": str(source["id"])}]
    return [entry]


def _pick(row: Mapping[str, Any], names: tuple[str, ...]) -> Row:
    return {name: row[name] for name in names}
