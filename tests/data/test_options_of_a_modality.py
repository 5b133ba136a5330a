"""A modality of a third party: its options reach every decoding, and what it makes of a cell or a file stays its own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multitune.core import catalog
from multitune.core.errors import PluginError
from multitune.core.ledger import Ledger
from multitune.core.protocols import Needs, Part, PartNeed
from multitune.core.recipe import PartSpec
from multitune.data import plan
from multitune.data.decode import modality, opened, read_as
from multitune.data.modalities import image
from multitune.data.sample import sample
from multitune.data.workers import Memo
from multitune.measure.page.media import Media
from multitune.models.prepare import TowerPreparer
from multitune.models.signals import ImageSignal
from tests.data.plain import recipe


class Separated(catalog.Options):
    separator: str = " "


class Numbers:
    """A few numbers in a cell."""

    name, media, towers, max_bytes, magic = "numbers_here", False, ("numbers",), 100, {}

    def __init__(self, separator: str) -> None:
        self.separator = separator

    def decode(self, value: Any) -> np.ndarray:
        return np.array([float(word) for word in (value.split(self.separator) if isinstance(value, str) else value)])

    def write(self, value: np.ndarray) -> str:
        return self.separator.join(map(str, value.tolist()))

    def synthesize(self, seed: int) -> np.ndarray:
        return np.full(seed + 1, 0.5)


class Negative(image.Images):
    """A picture with black and white exchanged."""

    name = "negative_here"

    def decode(self, value: Any) -> np.ndarray:
        return 255 - super().decode(value)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = SimpleNamespace(Options=Separated, build=lambda options: Numbers(options.separator))
    negative = SimpleNamespace(Options=catalog.Options, build=lambda options: Negative())
    for name, module in {"numbers_here": numbers, "negative_here": negative}.items():
        monkeypatch.setitem(vars(catalog)["_registered"], ("modality", name), module)


def spec(separator: str) -> PartSpec:
    return PartSpec(modality="numbers_here", options={"separator": separator})


def test_the_options_of_a_part_reach_its_decoding_and_go_on_with_it() -> None:
    part = sample({"curve": "1;2.5"}, {"curve": spec(";")}, id="a").parts["curve"]
    assert part.value.tolist() == [1.0, 2.5]
    assert opened(Part("numbers_here", "1;2", options=part.options)).value.tolist() == [1.0, 2.0]
    assert opened(part).options == {"separator": ";"}
    assert sample({"curve": "1|2"}, {"curve": spec("|")}, id="b").parts["curve"].value.tolist() == [1.0, 2.0]


def test_an_option_that_a_modality_does_not_take_is_refused() -> None:
    with pytest.raises(PluginError, match="no_such"):
        modality("numbers_here", {"no_such": 1})


def test_a_cell_that_decodes_to_no_text_is_no_repair(tmp_path: Path) -> None:
    rows = [{"id": str(n), "curve": f"{n};1", "label": "ab"[n % 2]} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = recipe({"name": "table", "path": str(tmp_path / "rows.jsonl")}, parts={"curve": spec(";").model_dump(), "label": "category"})
    ledger = Ledger()
    plan.outline(made, ledger)
    assert "repaired" not in ledger.counts()


def test_one_file_read_as_two_modalities_is_remembered_as_two(tmp_path: Path) -> None:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "a.png")
    parts = {"here": "image", "there": "negative_here"}
    row = sample({"here": "a.png", "there": "a.png"}, parts, id="a", root=tmp_path)
    assert row.parts["here"].value.key == row.parts["there"].value.key
    needs = Needs({name: PartNeed(kind) for name, kind in parts.items()}, {})
    made = TowerPreparer(dict.fromkeys(parts, ImageSignal(None)), needs).prepare(row, Memo(1 << 20))["parts"]
    assert (made["here"]["picture"] == 255 - made["there"]["picture"]).all()


def test_what_is_read_under_other_options_is_another_reading() -> None:
    left, right = (sample({"curve": "1"}, {"curve": spec(separator)}, id="a").parts["curve"] for separator in ";|")
    assert read_as(left) != read_as(right)


def test_what_is_no_picture_and_no_sound_is_shown_on_the_page_as_its_cell() -> None:
    part = sample({"curve": "1;2.5"}, {"curve": spec(";")}, id="a").parts["curve"]
    assert "1.0;2.5" in str(Media().show(part))
