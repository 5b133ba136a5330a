"""Drawn letters and digits with captions in words: what a picture tower needs to read real scans.

Each picture (PNG, 64 x 64) shows one character in Pillow's built-in font: thick or thin, scaled unevenly, sheared, turned up
to 14 degrees, bent, often cropped to the ink, most of them reduced to 8 to 24 pixels and enlarged again, light on dark or
dark on light, some in colour, with noise.

Columns: `id`, `image` (path), `caption` (`the digit seven`, `a letter b`), `glyph` (0 to 9, A to Z), `group` (the row itself:
every picture is drawn anew), `split` (train, valid, test: 80, 10 and 10 % of each class).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import Rows, Source
from multitune.core.randomness import generator
from multitune.data.manifest import open_table
from multitune.data.sources.chimes.draw import png
from multitune.data.sources.chimes.folder import ROWS, made_folder, write_rows
from multitune.data.sources.chimes.words import LETTERS, describe_glyph
from multitune.data.sources.glyphs.draw import draw

VERSION = 1  # of the drawing: any change to a pixel or a word raises it
DIGITS = tuple("0123456789")
GLYPHS = (*DIGITS, *(letter.upper() for letter in LETTERS))
SPLITS = ("train",) * 8 + ("valid", "test")


class Options(catalog.Options):
    """What is drawn, and where it is kept."""

    rows: int = Field(default=3_600, ge=1, le=1_000_000, description="Rows to draw.")
    seed: int = Field(default=0, ge=0, description="Other seeds give other rows.")
    characters: Literal["all", "digits", "letters"] = Field(default="all", description="The classes, all equally often.")
    path: Path | None = Field(default=None, description="Folder to write to; without it, the cache.")


class Glyphs:
    """The source: draws on the first `read` and finds the folder again on later ones."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def read(self) -> Rows:
        """The table of all rows, in order."""
        return open_table(self.folder() / ROWS, name="glyphs")

    def folder(self) -> Path:
        """The folder with `rows.jsonl` and the pictures."""
        options = self._options
        key = {"version": VERSION, "rows": options.rows, "seed": options.seed, "characters": options.characters}
        return made_folder("glyphs", key, path=options.path, write=lambda folder: write_folder(folder, options))


def build(options: Options) -> Source:
    """The source of these options; nothing is drawn before `read`."""
    return Glyphs(options)


def write_folder(folder: Path, options: Options) -> None:
    """Fill `folder` with `rows.jsonl` and the pictures."""
    (folder / "image").mkdir()
    write_rows(folder, _each_row(folder, options))


def _each_row(folder: Path, options: Options) -> Iterator[dict[str, Any]]:
    classes = {"all": GLYPHS, "digits": DIGITS, "letters": GLYPHS[len(DIGITS) :]}[options.characters]
    order = generator("glyphs", options.seed, "order").permutation(options.rows)
    for number, place in enumerate(order.tolist()):
        glyph = classes[place % len(classes)]
        row_id = f"glyph-{options.seed}-{number:06d}"
        names = ("glyphs", options.seed, options.characters, number)
        (folder / "image" / f"{row_id}.png").write_bytes(png(draw(generator(*names, "image"), glyph)))
        yield {
            "id": row_id,
            "image": f"image/{row_id}.png",
            "caption": describe_glyph(generator(*names, "words"), glyph),
            "glyph": glyph,
            "group": row_id,
            "split": SPLITS[place // len(classes) % len(SPLITS)],
        }
