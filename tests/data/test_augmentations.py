"""Augmentations: the same for the same row and epoch, the size that was; geometry held against numpy's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from multitune.core import catalog
from multitune.core.errors import DataError
from multitune.data.loader import augmentations
from tests.data.plain import recipe


def test_an_augmentation_of_another_modality_is_refused() -> None:
    parts = {"caption": {"modality": "text", "augment": ["flip"]}, "label": "category"}
    with pytest.raises(DataError, match="is for the modality image"):
        augmentations(recipe({"name": "digits"}, parts=parts).data.inputs)


@pytest.mark.parametrize("name", catalog.names("augmentation"))
def test_an_augmentation_keeps_size_and_kind_and_repeats_itself(name: str) -> None:
    parts = {"image": {"modality": "image", "augment": [name]}, "label": "category"}
    (step,) = augmentations(recipe({"name": "digits"}, parts=parts).data.inputs)["image"]
    for shape in ((16, 16, 3), (5, 9, 3)):
        value = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
        made = [step.apply(value, np.random.default_rng(seed)) for seed in range(20)]
        assert {(one.shape, one.dtype) for one in made} == {(shape, value.dtype)}
        assert np.array_equal(made[3], step.apply(value, np.random.default_rng(3)))
        assert len({one.tobytes() for one in made}) > 1


def test_affine_changes_a_picture_by_what_was_drawn_and_fills_up_with_its_edge() -> None:
    picture = np.random.default_rng(0).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)

    def changed(drawn: list[float], **options: float) -> Any:
        nothing = {"degrees": 0.0, "translate": 0.0, "scale": 0.0}
        step = catalog.find("augmentation", "affine", nothing | options).build()
        return step.apply(picture, SimpleNamespace(uniform=lambda *_, **__: np.array(drawn)))

    assert np.array_equal(changed([1, 1, 1, 1, 1]), picture)
    assert np.array_equal(changed([1, 0, 0, 0, 0], degrees=90), np.rot90(picture, -1))
    assert np.array_equal(changed([0, 1, 0, 0, 0], translate=0.25), np.concatenate([picture[:, :1]] * 2 + [picture[:, :-2]], 1))
