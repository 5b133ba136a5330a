"""Golden inputs: media written as files come back as exactly what was decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from multitune.core import catalog
from multitune.core.protocols import Category, Embedding, Number, Prediction, Sound, Text
from multitune.data.decode import modality
from multitune.deliver.golden import distance

MEDIA = [name for name in catalog.names("modality") if modality(name).media and modality(name).magic]


@pytest.mark.parametrize("name", MEDIA)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_medium_that_is_written_and_read_again_has_the_same_bits(name: str, seed: int) -> None:
    kind: Any = modality(name)
    value = kind.synthesize(seed)
    suffix, data = kind.encode(value)
    again = kind.decode(data)
    if isinstance(value, Sound):
        assert value.rate == again.rate
        value, again = value.wave, again.wave
    assert suffix.startswith(".")
    assert np.array_equal(value, again)


@pytest.mark.parametrize(
    ("left", "right", "apart"),
    [
        (Category("a", {"a": 0.75, "b": 0.25}), Category("a", {"a": 0.5, "b": 0.5}), 0.25),
        (Number(1.0), Number(3.0), 2.0),
        (Text("x", -1.0), Text("x", -1.5), 0.5),
        (Text("x", -1.0), Text("y", -1.0), float("inf")),
        (Embedding(np.array([1.0, 0.0])), Embedding(np.array([0.5, 0.0])), 0.5),
        (Embedding(np.zeros(2)), Embedding(np.zeros(3)), float("inf")),
        (Number(1.0), Text("1.0", 0.0), float("inf")),
    ],
)
def test_the_distance_of_two_predictions_is_that_of_their_numbers(left: Any, right: Any, apart: float) -> None:
    assert distance(Prediction("0", {"x": left}), Prediction("0", {"x": right})) == apart


def test_other_answers_are_infinitely_far() -> None:
    assert distance(Prediction("0", {"x": Number(1.0)}), Prediction("0", {"y": Number(1.0)})) == float("inf")
