"""Which row shows what: splits of whole scenes, and attributes balanced so that one part alone says nothing of the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from multitune.core.randomness import generator
from multitune.data.sources.chimes.words import COLOURS, CONTOUR_GROUPS, CONTOURS, SHAPE_GROUPS, SHAPES, TIMBRES

PAIRINGS = 4


@dataclass(frozen=True)
class Cell:
    """The attributes of one row and where it stands."""

    shape: str
    colour: str
    timbre: str
    contour: str
    scene: int
    split: str

    @property
    def pairing(self) -> str:
        """The shape's group and the contour's group: one of four classes."""
        return f"{SHAPE_GROUPS[self.shape]}-{CONTOUR_GROUPS[self.contour]}"

    @property
    def agree(self) -> str:
        """`yes` where a day shape meets a straight tune, or a night shape a bent one: an exclusive or of the two groups."""
        same = (SHAPE_GROUPS[self.shape] == "day") == (CONTOUR_GROUPS[self.contour] == "straight")
        return "yes" if same else "no"


def plan_cells(*, rows: int, scene_rows: int, valid: float, test: float, seed: int, domain: str) -> list[Cell]:
    """One cell a row, in row order; rows `k * scene_rows` to `(k + 1) * scene_rows - 1` are scene k.

    Attributes are dealt after the splits, within each: every list of (shape's place in its group, contour's place in its
    group, colour, timbre) appears once in each of the four pairings. So in every split any function of the picture's
    attributes meets both contour groups equally often, and the other way round. Where a split's rows are no multiple of
    four, one to three rows are over.
    """
    scenes = math.ceil(rows / scene_rows)
    splits = _scene_splits(scenes, unit=PAIRINGS // math.gcd(PAIRINGS, scene_rows), valid=valid, test=test, seed=seed, domain=domain)
    of_row = [splits[row // scene_rows] for row in range(rows)]
    cells: dict[int, Cell] = {}
    for split in ("train", "valid", "test"):
        members = [row for row in range(rows) if of_row[row] == split]
        rng = generator("chimes", seed, domain, "cells", split)
        for row, (shape, colour, timbre, contour) in zip(members, _deal(len(members), rng), strict=True):
            cells[row] = Cell(shape, colour, timbre, contour, row // scene_rows, split)
    return [cells[row] for row in range(rows)]


def _scene_splits(scenes: int, *, unit: int, valid: float, test: float, seed: int, domain: str) -> list[str]:
    """The split of each scene; counts are rounded to multiples of `unit`, which makes the rows a multiple of four."""
    step = unit if scenes >= 10 * unit else 1
    num_valid, num_test = (max(step, round(share * scenes / step) * step) if share else 0 for share in (valid, test))
    if num_valid + num_test >= scenes:
        num_valid = num_test = 0
    names = ["valid"] * num_valid + ["test"] * num_test + ["train"] * (scenes - num_valid - num_test)
    return [names[place] for place in generator("chimes", seed, domain, "splits").permutation(scenes)]


def _deal(count: int, rng: np.random.Generator) -> list[tuple[str, str, str, str]]:
    """`count` attribute tuples (shape, colour, timbre, contour), shuffled."""
    per_pairing, over = divmod(count, PAIRINGS)
    size = per_pairing + (over > 0)
    places = rng.permutation(size) % 8
    colours, timbres = rng.permutation(size) % len(COLOURS), rng.permutation(size) % len(TIMBRES)
    dealt: list[tuple[str, str, str, str]] = []
    for rank, pairing in enumerate(rng.permutation(PAIRINGS)):
        shape_group, contour_group = divmod(int(pairing), 2)
        for i in range(per_pairing + (rank < over)):
            shape = SHAPES[4 * shape_group + int(places[i]) // 2]
            contour = CONTOURS[2 * contour_group + int(places[i]) % 2]
            dealt.append((shape, COLOURS[colours[i]], TIMBRES[timbres[i]], contour))
    return [dealt[i] for i in rng.permutation(count)]
