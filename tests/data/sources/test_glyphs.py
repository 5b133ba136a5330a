"""The glyphs source: every class, the same bytes again, words that are true."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from multitune.core.randomness import generator
from multitune.data.sources import glyphs
from multitune.data.sources.chimes.words import NUMBERS, VOCABULARY
from multitune.data.sources.glyphs import DIGITS, GLYPHS, Glyphs, Options
from multitune.data.sources.glyphs.draw import draw


def table(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Glyphs(Options(rows=360, path=tmp_path_factory.mktemp("drawn") / "glyphs")).folder()


def test_every_class_is_equally_frequent_and_in_every_split(drawn: Path) -> None:
    counts = Counter((row["glyph"], row["split"]) for row in table(drawn))
    assert all((counts[glyph, "train"], counts[glyph, "valid"], counts[glyph, "test"]) == (8, 1, 1) for glyph in GLYPHS)


def test_captions_name_the_character_in_words_of_the_vocabulary(drawn: Path) -> None:
    for row in table(drawn):
        said = set(row["caption"].split())
        assert said <= set(VOCABULARY)
        assert (NUMBERS[int(row["glyph"])] if row["glyph"] in DIGITS else row["glyph"].lower()) in said
        assert bool(said & {"digit", "number"}) == (row["glyph"] in DIGITS)


def test_pictures_are_64_by_64_with_ink_on_paper(drawn: Path) -> None:
    for row in table(drawn):
        with Image.open(drawn / row["image"]) as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (64, 64), "RGB")
            assert np.asarray(picture, np.float32).std() > 8


def test_the_same_options_give_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    again = Glyphs(Options(rows=360, path=tmp_path / "again")).folder()
    names = sorted(str(file.relative_to(drawn)) for file in drawn.rglob("*") if file.is_file())
    assert all((again / name).read_bytes() == (drawn / name).read_bytes() for name in names)


def test_another_seed_draws_other_pictures() -> None:
    assert draw(generator(0), "B").tobytes() != draw(generator(1), "B").tobytes()


@pytest.mark.parametrize(("characters", "classes"), [("digits", GLYPHS[:10]), ("letters", GLYPHS[10:])])
def test_classes_can_be_chosen(characters: Literal["digits", "letters"], classes: tuple[str, ...], tmp_path: Path) -> None:
    folder = Glyphs(Options(rows=52, characters=characters, path=tmp_path / "x")).folder()
    assert {row["glyph"] for row in table(folder)} == set(classes)


def test_read_gives_the_rows_of_the_table(drawn: Path) -> None:
    rows = glyphs.build(Options(rows=360, path=drawn)).read()
    assert len(rows) == 360
    assert set(rows.columns) == {"id", "image", "caption", "glyph", "group", "split"}
