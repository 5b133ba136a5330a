"""Rows of chimes on disk: pictures, sounds and the table, drawn by one process or by two."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from multitune.core.randomness import generator
from multitune.data.sources.chimes.cells import Cell, plan_cells
from multitune.data.sources.chimes.damage import plant
from multitune.data.sources.chimes.draw import Backdrop, backdrop, draw, png
from multitune.data.sources.chimes.folder import write_rows
from multitune.data.sources.chimes.sound import Floor, floor, play, wav
from multitune.data.sources.chimes.words import CONTOUR_GROUPS, SHAPE_GROUPS, Domain, describe

SHARED_FROM = 5_000  # rows; below, starting a second process takes longer than it saves
PROCESSES = 2
SCENES_AT_ONCE = 100


@dataclass(frozen=True)
class Request:
    """What is to be drawn; the same request gives the same bytes, however many processes draw it."""

    rows: int
    seed: int
    domain: Domain
    scene_rows: int
    valid: float
    test: float
    parts: tuple[str, ...]
    faults: float


@dataclass(frozen=True)
class Scene:
    """Rows that share background and noise floor."""

    number: int
    first_row: int
    cells: tuple[Cell, ...]


def write_folder(folder: Path, request: Request) -> None:
    """Fill `folder` with `rows.jsonl`, the media that `request.parts` asks for and, where there are faults, `planted.json`."""
    cells = plan_cells(
        rows=request.rows,
        scene_rows=request.scene_rows,
        valid=request.valid,
        test=request.test,
        seed=request.seed,
        domain=request.domain,
    )
    starts = range(0, len(cells), request.scene_rows)
    scenes = [Scene(n, start, tuple(cells[start : start + request.scene_rows])) for n, start in enumerate(starts)]
    chunks = [scenes[i : i + SCENES_AT_ONCE] for i in range(0, len(scenes), SCENES_AT_ONCE)]
    for part in request.parts:
        (folder / part).mkdir()
    rows: list[dict[str, Any]] = []
    with Progress(console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(f"drawing chimes ({request.domain})", total=request.rows)
        for drawn in _each_chunk(folder, request, chunks):
            rows += drawn
            progress.advance(bar, len(drawn))
    if request.faults:
        rows = plant(folder, rows, share=request.faults, seed=request.seed)
    write_rows(folder, rows)


def _each_chunk(folder: Path, request: Request, chunks: Sequence[list[Scene]]) -> Iterator[list[dict[str, Any]]]:
    """The rows of each chunk in order. A script without a `__main__` guard cannot start processes: then this one draws all."""
    work = partial(write_scenes, folder, request)
    done = 0
    if request.rows >= SHARED_FROM and not multiprocessing.current_process().daemon:
        try:
            with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
                for drawn in pool.map(work, chunks):
                    done += 1
                    yield drawn
        except BrokenProcessPool:
            pass
    yield from map(work, chunks[done:])


def write_scenes(folder: Path, request: Request, scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    """Draw scenes into `folder`; returns their rows in order."""
    rows: list[dict[str, Any]] = []
    for scene in scenes:
        names = ("chimes", request.seed, request.domain, "scene", scene.number)
        look = backdrop(generator(*names, "image"), domain=request.domain)
        noise = floor(generator(*names, "audio"), domain=request.domain)
        for place, cell in enumerate(scene.cells):
            rows.append(_write_row(folder, request, scene.first_row + place, cell, place, look, noise))
    return rows


def _write_row(folder: Path, request: Request, number: int, cell: Cell, place: int, look: Backdrop, noise: Floor) -> dict[str, Any]:
    names = ("chimes", request.seed, request.domain, "row", number)
    row_id = f"{request.domain}-{request.seed}-{number:06d}"
    row: dict[str, Any] = {"id": row_id}
    if "image" in request.parts:
        row["image"] = f"image/{row_id}.png"
        picture = draw(generator(*names, "image"), shape=cell.shape, colour=cell.colour, scene=look, domain=request.domain)
        (folder / row["image"]).write_bytes(png(picture))
    if "audio" in request.parts:
        row["audio"] = f"audio/{row_id}.wav"
        sound = play(generator(*names, "audio"), timbre=cell.timbre, contour=cell.contour, scene=noise, domain=request.domain)
        (folder / row["audio"]).write_bytes(wav(sound))
    rng = generator(*names, "words")
    shown = {"shape": cell.shape, "colour": cell.colour, "timbre": cell.timbre, "contour": cell.contour}
    said = describe(rng, **shown, domain=request.domain)
    start = round(1.2 * place + float(rng.uniform(0, 0.15)), 3)
    return row | {
        "caption": said.both,
        "image_caption": said.picture,
        "audio_caption": said.sound,
        **shown,
        "shape_group": SHAPE_GROUPS[cell.shape],
        "contour_group": CONTOUR_GROUPS[cell.contour],
        "pairing": cell.pairing,
        "agree": cell.agree,
        "group": f"{request.domain}-{request.seed}-s{cell.scene:05d}",
        "split": cell.split,
        "start": start,
        "end": round(start + 1.0, 3),
    }
