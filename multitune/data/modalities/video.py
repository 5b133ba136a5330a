"""Films: frames in memory, an array or a list of pictures; files are not read.

Every frame is made RGB as a picture would be, and all have one size. More than 4,096 frames or 256 million pixels in all are
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from PIL import Image

from multitune.core import catalog
from multitune.core.protocols import Modality
from multitune.core.randomness import generator
from multitune.data.modalities import image

MAX_FRAMES = 4_096
MAX_PIXELS = 256_000_000


class Options(catalog.Options):
    """No options."""


class Films:
    """The modality of films; a decoded one is a uint8 array (frames, height, width, 3)."""

    name = "video"
    media = True
    towers: tuple[str, ...] = ("video",)
    max_bytes = 0
    magic: Mapping[str, tuple[tuple[int, bytes], ...]] = {}

    def decode(self, value: Any) -> np.ndarray:
        """RGB frames of an array (frames, height, width, channels), or of a list of pictures. Raises ValueError."""
        if isinstance(value, np.ndarray) and value.ndim == 4:
            frames: Sequence[Any] = cast("Sequence[Any]", value)
        elif isinstance(value, list | tuple) and all(isinstance(frame, np.ndarray | Image.Image) for frame in value):
            frames = cast("Sequence[Any]", value)
        else:
            shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
            raise ValueError(
                f"found {type(value).__name__}{shape}, not a film; give frames (frames, height, width, 3) or a list of pictures"
            )
        if not 0 < len(frames) <= MAX_FRAMES:
            raise ValueError(f"has {len(frames):,} frames; 1 to {MAX_FRAMES:,} are taken")
        first = frames[0]
        width, height = first.size if isinstance(first, Image.Image) else first.shape[1::-1]
        if len(frames) * width * height > MAX_PIXELS:
            raise ValueError(f"is {len(frames):,} frames of {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} pixels are taken")
        pictures = image.build(image.Options())
        decoded = [pictures.decode(frame) for frame in frames]
        sizes = {frame.shape[:2] for frame in decoded}
        if len(sizes) > 1:
            shown = " and ".join(f"{width} x {height}" for height, width in sorted(sizes)[:2])
            raise ValueError(f"has frames of different sizes, such as {shown}")
        return np.stack(decoded)

    def measure(self, value: Any) -> tuple[int, ...]:
        """Frames. Raises ValueError for a file, which no film is yet."""
        if not isinstance(value, np.ndarray):
            raise ValueError("a film is taken from memory only")
        return (len(value),)

    def synthesize(self, seed: int) -> np.ndarray:
        """A picture that moves, 4 to 12 frames of 8 to 32 pixels a side."""
        rng = generator("video", seed)
        count, height, width = (int(number) for number in rng.integers((4, 8, 8), (13, 33, 33)))
        small = Image.fromarray(rng.integers(0, 256, size=(4, 4, 3), dtype=np.uint8))
        picture = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
        return np.stack([np.roll(picture, frame, axis=1) for frame in range(count)])


def build(options: Options) -> Modality:
    """The modality."""
    return Films()
