"""Films are frames in memory: an array or a list of pictures, all of one size, none of them read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multitune.core.protocols import Part
from multitune.data.decode import BadPart, modality, opened
from multitune.data.modalities.video import MAX_FRAMES
from multitune.data.sample import sample

FRAMES = modality("video").synthesize(1)


def film(value: Any) -> np.ndarray:
    return opened(Part("video", value)).value


def test_an_array_and_a_list_of_its_pictures_are_the_same_film() -> None:
    assert np.array_equal(film(FRAMES), FRAMES)
    assert np.array_equal(film([Image.fromarray(frame) for frame in FRAMES]), FRAMES)
    assert np.array_equal(film(list(FRAMES)), FRAMES)


def test_a_grey_frame_becomes_rgb_as_a_picture_does() -> None:
    grey = FRAMES[..., 0]
    assert np.array_equal(film(list(grey)), np.repeat(grey[..., None], 3, axis=-1))


def test_made_up_films_differ_in_length_and_size() -> None:
    assert len({modality("video").synthesize(seed).shape for seed in range(8)}) > 4


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (FRAMES[0], "give frames"),
        (FRAMES.astype(np.float32), "a picture is uint8"),
        ([], "has 0 frames"),
        (np.zeros((MAX_FRAMES + 1, 1, 1, 3), np.uint8), "4,097 frames"),
        (np.broadcast_to(np.zeros((), np.uint8), (4_000, 300, 300, 3)), "256,000,000 pixels"),
        ([FRAMES[0], FRAMES[0][:-1]], "frames of different sizes"),
        ("film.mp4", "not a film"),
    ],
)
def test_what_is_no_film_is_refused_with_the_cause(value: Any, cause: str) -> None:
    with pytest.raises(BadPart, match=cause):
        film(value)


def test_a_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"\0" * 64)
    row = sample({"clip": "film.mp4"}, {"clip": "video"}, id="1", root=tmp_path)
    with pytest.raises(BadPart, match="video is taken from memory only"):
        opened(row.parts["clip"])
