"""A row's bits depend on the row alone."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Needs, Part, PartNeed, Prediction, Sample, Sound
from multitune.core.randomness import generator
from multitune.models.contract import contract
from multitune.models.load import Weights
from multitune.models.predictor import Predictor, plain

Folders = Mapping[str, Path]
NEEDS = {"vit": "image", "swin": "image", "resnet": "image", "bert": "text", "wav2vec2": "audio"}
WORDS = ["red", "blue", "circle", "river", "two", "stars"]


def family(folder: Path, modality: str, fuse: str = "concat") -> Any:
    needs = Needs({"x": PartNeed(modality)}, {"label": AnswerNeed("category", ("a", "b", "c"))})
    return catalog.find("family", "fusion_encoder", {"towers": {"x": str(folder)}, "fuse": fuse}).build(needs, Weights())


def samples(modality: str, count: int) -> list[Sample]:
    made = []
    for place in range(count):
        random = generator("predictor", place)
        value: Any = " ".join(random.choice(WORDS, size=1 + place % 9))
        if modality == "image":
            value = random.integers(0, 256, (20 + 7 * (place % 4), 40, 3), dtype=np.uint8)
        if modality == "audio":
            value = Sound(random.standard_normal(1_500 + 400 * place).astype(np.float32) / 8, 16_000)
        made.append(Sample(str(place), {"x": Part(modality, value)} if place % 7 else {}))
    return made


@pytest.mark.parametrize("kind", NEEDS)
@pytest.mark.parametrize("fuse", ["concat", "cross_attention"])
def test_a_row_alone_is_the_row_among_others_bit_for_bit(folders: Folders, kind: str, fuse: str) -> None:
    predictor = Predictor(family(folders[kind], NEEDS[kind], fuse), group_rows=4)
    rows = samples(NEEDS[kind], 11)
    among = [plain(one) for one in predictor.predict(rows)]
    assert among == [plain(predictor.predict([row])[0]) for row in rows]
    assert among[::-1] == [plain(one) for one in predictor.predict(rows[::-1])]


def test_predictions_come_in_the_order_of_the_samples(folders: Folders) -> None:
    made = Predictor(family(folders["bert"], "text"), group_rows=3).predict(samples("text", 10))
    assert [one.id for one in made] == [str(place) for place in range(10)]


def test_no_more_rows_than_a_group_for_each_shape_are_held_back(folders: Folders) -> None:
    predictor = Predictor(family(folders["vit"], "image"), group_rows=4)
    taken: list[int] = []

    def rows() -> Any:
        for place, row in enumerate(samples("image", 21)):
            taken.append(place)
            yield row

    ahead = [len(taken) - done for done, _ in enumerate(predictor.stream(rows()))]
    assert max(ahead) <= 2 * 4


def test_the_family_is_left_in_the_mode_it_was_in(folders: Folders) -> None:
    made = family(folders["bert"], "text").train()
    made.towers["x"].eval()
    modes = [module.training for module in made.modules()]
    first, second = (Predictor(made).predict(samples("text", 3)) for _ in range(2))
    assert [module.training for module in made.modules()] == modes
    assert [plain(one) for one in first] == [plain(one) for one in second]


def test_a_prediction_as_plain_data_says_what_kind_each_answer_is(folders: Folders) -> None:
    made: Prediction = Predictor(family(folders["vit"], "image")).predict(samples("image", 1))[0]
    answer = plain(made)["answers"]["label"]
    assert set(answer) == {"kind", "value", "scores"}
    assert answer["kind"] == "category"


@pytest.mark.parametrize("kind", NEEDS)
def test_a_preparer_travels_and_prepares_the_same(folders: Folders, kind: str) -> None:
    made = family(folders[kind], NEEDS[kind])
    again = pickle.loads(pickle.dumps(made.preparer))  # noqa: S301
    assert again.describe() == made.preparer.describe()


def test_the_contract_is_the_same_for_the_same_preparation_and_another_for_another(folders: Folders) -> None:
    first, same = (contract(family(folders["bert"], "text")) for _ in range(2))
    assert first == same
    needs = Needs({"x": PartNeed("text", {"max_length": 5})}, {"label": AnswerNeed("category", ("a", "b", "c"))})
    shorter = catalog.find("family", "fusion_encoder", {"towers": {"x": str(folders["bert"])}}).build(needs, Weights())
    assert contract(shorter)["hash"] != first["hash"]


def test_a_text_over_the_limit_is_cut_and_the_row_says_by_how_much(folders: Folders) -> None:
    made = family(folders["bert"], "text")
    rows = [Sample("x", {"x": Part("text", " ".join(["red"] * count))}) for count in (22, 30)]
    short, long = (made.preparer.prepare(row, Predictor(made)._memo) for row in rows)
    assert short["truncated"] == {}
    assert long["truncated"] == {"x": 8}
    assert len(long["parts"]["x"]["names"]["input_ids"]) == 24
