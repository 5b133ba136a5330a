"""Pictures and sounds small enough to stand in the page itself, and only so many bytes of them."""

from __future__ import annotations

import base64
import io
import wave
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray
from PIL import Image

from multitune.core.protocols import CellModality, Part, Sound
from multitune.data.decode import BadPart, modality, opened
from multitune.measure.page.markup import Markup, tag
from multitune.measure.page.words import say

SIDE = 160  # pixels
PIXELATED = 48  # pictures of fewer pixels a side are shown as they are, enlarged
SECONDS, RATE = 2.5, 11_025
MOST_BYTES = 2_500_000
MOST_LETTERS = 400


@dataclass
class Media:
    """Makes what can be seen and heard of parts; left: bytes of the page that are still free."""

    left: int = MOST_BYTES

    def show(self, part: Part) -> Markup:
        """The part as the page shows it."""
        try:
            value = opened(part).value
        except BadPart as bad:
            return tag("small", say("unshowable"), f": {bad.cause}")
        if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (3, 4) and value.shape[-1] == 3:
            return self._picture(value[len(value) // 2] if value.ndim == 4 else value)
        if isinstance(value, Sound):
            return self._sound(value)
        kind = modality(part.modality, part.options)
        if isinstance(kind, CellModality):
            value = kind.write(value)
        return tag("div", clipped(f"{value:.6g}" if isinstance(value, float) else str(value)))

    def _picture(self, pixels: NDArray[np.uint8]) -> Markup:
        picture = Image.fromarray(pixels)
        tiny = max(picture.size) <= PIXELATED
        picture.thumbnail((SIDE, SIDE))
        stream = io.BytesIO()
        if tiny:
            picture.save(stream, format="PNG")
        else:
            picture.save(stream, format="JPEG", quality=72)
        source = self._data("image/png" if tiny else "image/jpeg", stream.getvalue())
        return tag("img", src=source, alt="", class_="tiny" if tiny else "seen") if source else _left_out()

    def _sound(self, sound: Sound) -> Markup:
        heard = sound.wave[: int(SECONDS * sound.rate)]
        rate = min(sound.rate, RATE)
        if rate != sound.rate:
            heard = soxr.resample(heard, sound.rate, rate)
        stream = io.BytesIO()
        with wave.open(stream, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((np.clip(heard, -1, 1) * 32767).astype("<i2").tobytes())
        source = self._data("audio/wav", stream.getvalue())
        return tag("audio", controls=True, preload="metadata", src=source) if source else _left_out()

    def _data(self, kind: str, data: bytes) -> str:
        source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        if len(source) > self.left:
            return ""
        self.left -= len(source)
        return source


def clipped(text: str, most: int = MOST_LETTERS) -> str:
    """The text, or as much of it as the page has room for."""
    return text if len(text) <= most else f"{text[:most]} ..."


def _left_out() -> Markup:
    return tag("small", say("media_left_out"))
