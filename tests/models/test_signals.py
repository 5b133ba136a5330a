"""What a tower is given follows from the part alone."""

from __future__ import annotations

import numpy as np
from transformers import ClapFeatureExtractor, VideoMAEVideoProcessor

from multitune.core.protocols import Sound
from multitune.core.randomness import generator
from multitune.models.signals import AudioSignal, VideoSignal


def test_an_extractor_that_cuts_at_a_drawn_place_cuts_a_sound_where_the_sound_says() -> None:
    way = AudioSignal(ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc", padding="repeatpad"))
    sound = Sound(generator("long").standard_normal(200_000).astype(np.float32) / 8, 48_000)
    np.random.seed(1)
    first = way.row(sound)["names"]["input_features"]
    np.random.seed(2)
    outside = np.random.get_state()[1]
    again = way.row(sound)["names"]["input_features"]
    assert np.array_equal(first, again)
    assert np.array_equal(outside, np.random.get_state()[1])
    assert not np.array_equal(first, way.row(Sound(sound.wave + 1e-3, 48_000))["names"]["input_features"])


def test_frames_are_taken_from_the_middles_of_equal_stretches() -> None:
    film = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)

    def taken(frames: int) -> list[int]:
        return VideoSignal(None, frames).row(film)["film"][:, 0, 0, 0].tolist()

    assert taken(4) == [1, 4, 7, 10]
    assert taken(0) == list(range(12))
    assert taken(24) == [number for number in range(12) for _ in range(2)]


def test_a_batch_of_films_is_that_of_the_processor() -> None:
    processor = VideoMAEVideoProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    films = [generator("film", place).integers(0, 256, (4, 20 + place, 18, 3), dtype=np.uint8) for place in range(2)]
    way = VideoSignal(processor, 4)
    made = way.batch([way.row(film) for film in films])
    expected = processor(videos=films, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    assert made["pixel_values"].shape == (2, 4, 3, 16, 16)
    assert bool((made["pixel_values"] == expected).all())
