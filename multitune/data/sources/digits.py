"""The 1,797 handwritten digits that come with scikit-learn: real scans of 8 x 8 pixels, with captions in words.

The scans are kept as they are, as grey PNGs (0..16 becomes 0..255; light ink on dark); a processor makes them larger.

Columns: `id`, `image` (path), `caption` (`the digit seven`, in varied wording), `label` (0 to 9), `number` (the same, to be
regressed). There is no split and no group: the writers are not known.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), doi:10.24432/C50P49; its test part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import Rows, Source
from multitune.core.randomness import generator
from multitune.data.manifest import open_table
from multitune.data.sources.chimes.draw import png
from multitune.data.sources.chimes.folder import ROWS, made_folder, write_rows
from multitune.data.sources.chimes.words import describe_glyph

VERSION = 1


class Options(catalog.Options):
    """How the scans are captioned, and where they are kept."""

    seed: int = Field(default=0, ge=0, description="Of the wording; the scans are always the same.")
    path: Path | None = Field(default=None, description="Folder to write to; without it, the cache.")


class Digits:
    """The source: writes the scans on the first `read` and finds the folder again on later ones."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def read(self) -> Rows:
        """The table of all rows, in scikit-learn's order."""
        return open_table(self.folder() / ROWS, name="digits")

    def folder(self) -> Path:
        """The folder with `rows.jsonl` and the scans."""
        options = self._options
        key = {"version": VERSION, "seed": options.seed}
        return made_folder("digits", key, path=options.path, write=lambda folder: write_folder(folder, options.seed))


def build(options: Options) -> Source:
    """The source of these options; nothing is written before `read`."""
    return Digits(options)


def write_folder(folder: Path, seed: int) -> None:
    """Fill `folder` with `rows.jsonl` and the scans."""
    (folder / "image").mkdir()
    write_rows(folder, _each_row(folder, seed))


def _each_row(folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    from sklearn.datasets import load_digits  # heavy, and wanted by this source alone

    scans, labels = load_digits(return_X_y=True)
    grey = np.round(scans.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    for number, digit in enumerate(labels.tolist()):
        row_id = f"digit-{number:04d}"
        (folder / "image" / f"{row_id}.png").write_bytes(png(Image.fromarray(grey[number])))
        caption = describe_glyph(generator("digits", seed, number), str(digit), scanned=True)
        yield {"id": row_id, "image": f"image/{row_id}.png", "caption": caption, "label": str(digit), "number": digit}
