"""Pictures with sounds, drawn by code from a seed and written as real files (PNG, WAV, JSONL).

A picture (64 x 64) shows one main shape, of any size, place and rotation, on a textured background among distractors and
noise. A sound (16 kHz, mono, one second) is a motif of five notes over noise 10 to 30 dB below. The caption names both.

Columns: `id`, `image`, `audio` (paths), `caption`, `image_caption` and `audio_caption` (about one part alone), `shape`
(circle, triangle, cross, moon, square, star, ring, heart), `colour` (red, orange, yellow, green, cyan, blue, purple, pink),
`timbre` (flute, bell, reed, harp), `contour` (rising, falling, arching, dipping), `shape_group` (day, night),
`contour_group` (straight, bent), `pairing` (the two groups joined: four classes), `agree` (yes, no), `group` (the scene),
`split`, `start` and `end` (seconds on the scene's clock).

`pairing` needs both parts: either alone reaches 50 %, exactly, in every split. `agree` needs their interaction: it is an
exclusive or of the groups, so either part alone stays at 50 % and a sum of a picture score and a sound score near it.
Rows of a scene share background and noise floor, and stay in one split.

`domain: target` changes colours, textures, timbres, wording and noise. `faults: 0.02` damages 2 % of the rows (`cut_image`,
`empty_audio`, `swapped_caption`, `empty_caption`, `duplicate` over scenes) and lists them in `planted.json` beside the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from multitune.core import catalog
from multitune.core.protocols import Rows, Source
from multitune.data.manifest import open_table
from multitune.data.sources.chimes.folder import ROWS, made_folder
from multitune.data.sources.chimes.rows import Request, write_folder

VERSION = 1  # of the drawing: any change to a pixel, a sample or a word raises it


class Options(catalog.Options):
    """What is drawn, and where it is kept."""

    rows: int = Field(default=4_000, ge=1, le=1_000_000, description="Rows to draw.")
    seed: int = Field(default=0, ge=0, description="Other seeds give other rows.")
    domain: Literal["base", "target"] = Field(default="base", description="Colours, textures, timbres, wording and noise.")
    faults: float = Field(default=0.0, ge=0, le=0.5, description="Share of rows that are damaged; planted.json lists them.")
    valid: float = Field(default=0.1, ge=0, lt=1, description="Share of scenes whose `split` is valid.")
    test: float = Field(default=0.1, ge=0, lt=1, description="Share of scenes whose `split` is test; the rest is train.")
    scene_rows: int = Field(default=5, ge=1, le=100, description="Rows of a scene.")
    parts: tuple[Literal["image", "audio"], ...] = Field(
        default=("image", "audio"), description="Media to draw; captions are always there."
    )
    path: Path | None = Field(default=None, description="Folder to write to; without it, the cache.")

    @model_validator(mode="after")
    def _splits_leave_room(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError("valid and test together leave no rows to train on")
        return self


class Chimes:
    """The source: draws on the first `read` and finds the folder again on later ones."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def read(self) -> Rows:
        """The table of all rows, in order."""
        return open_table(self.folder() / ROWS, name="chimes")

    def folder(self) -> Path:
        """The folder with `rows.jsonl`, the media and, where there are faults, `planted.json`."""
        options = self._options
        parts = tuple(part for part in ("image", "audio") if part in options.parts)
        request = Request(
            rows=options.rows,
            seed=options.seed,
            domain=options.domain,
            scene_rows=options.scene_rows,
            valid=options.valid,
            test=options.test,
            parts=parts,
            faults=options.faults,
        )
        key = {"version": VERSION, **vars(request)}
        return made_folder("chimes", key, path=options.path, write=lambda folder: write_folder(folder, request))


def build(options: Options) -> Source:
    """The source of these options; nothing is drawn before `read`."""
    return Chimes(options)
