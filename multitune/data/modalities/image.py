"""Pictures: JPEG, PNG or WebP, decoded to RGB.

Rotation that EXIF asks for is applied. Alpha is laid over white, 16-bit grey is scaled to 8 bits, of an animation the first
frame is taken. A file that was cut, whose checksums do not hold or that is larger than 64 million pixels is refused before
its pixels take memory.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from multitune.core import catalog
from multitune.core.protocols import MediaModality
from multitune.core.randomness import generator

MAX_BYTES = 64 << 20
MAX_PIXELS = 64_000_000
_TURNING = {"exif", "xmp", "Raw profile type exif"}  # where a file may ask for rotation
_ON_THEIR_SIDE = range(5, 9)  # orientations that exchange height and width
_PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin)  # imported, so that Pillow need not load all of its own
# Pillow's parsers let all of these through on damaged bytes.
_PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError, AttributeError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError, Warning,
)  # fmt: skip


class Options(catalog.Options):
    """No options."""


class Images:
    """The modality of pictures; a decoded one is a uint8 array (height, width, 3)."""

    name = "image"
    media = True
    towers: tuple[str, ...] = ("image",)
    max_bytes = MAX_BYTES
    magic: Mapping[str, tuple[tuple[int, bytes], ...]] = {
        "JPEG": ((0, b"\xff\xd8\xff"),),
        "PNG": ((0, b"\x89PNG\r\n\x1a\n"),),
        "WebP": ((0, b"RIFF"), (8, b"WEBP")),
    }

    def decode(self, value: Any) -> np.ndarray:
        """RGB pixels of a file's bytes, a PIL picture or an array. Raises ValueError."""
        if isinstance(value, bytes):
            return _from_bytes(value)
        if isinstance(value, Image.Image):
            return _guarded(value)
        if isinstance(value, np.ndarray):
            return _from_array(value)
        raise ValueError(f"found {type(value).__name__}, not a picture")

    def measure(self, value: Any) -> tuple[int, ...]:
        """Height and width as `decode` gives them, of a file by its header. Raises ValueError."""
        if isinstance(value, np.ndarray):
            return int(value.shape[0]), int(value.shape[1])
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(value, formats=("JPEG", "PNG", "WEBP")) as picture:
                turned = picture.info.keys() & _TURNING and picture.getexif().get(ExifTags.Base.Orientation, 1) in _ON_THEIR_SIDE
                width, height = reversed(picture.size) if turned else picture.size
        except _PILLOW_ERRORS as error:
            raise ValueError(f"has no header ({type(error).__name__})") from None
        return height, width

    def encode(self, value: np.ndarray) -> tuple[str, bytes]:
        """A PNG of exactly these pixels."""
        stream = io.BytesIO()
        Image.fromarray(value).save(stream, format="PNG")
        return ".png", stream.getvalue()

    def synthesize(self, seed: int) -> np.ndarray:
        """A smooth random picture, 8 to 64 pixels a side."""
        rng = generator("image", seed)
        height, width = (int(side) for side in rng.integers(8, 65, size=2))
        small = Image.fromarray(rng.integers(0, 256, size=(4, 4, 3), dtype=np.uint8))
        return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def build(options: Options) -> MediaModality:
    """The modality."""
    return Images()


def _from_bytes(data: bytes) -> np.ndarray:
    if data.startswith(b"\x89PNG"):
        _check_png(data)
    elif data.startswith(b"RIFF"):
        if int.from_bytes(data[4:8], "little") + 8 > len(data):
            raise ValueError(f"was cut: a WebP of {int.from_bytes(data[4:8], 'little') + 8:,} bytes, found {len(data):,}")
    elif data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # within a scan, ff is never followed by d9
        raise ValueError("was cut: the JPEG has no end mark")
    # A library may have switched this on for the whole process; half a picture would then come out as grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as picture:
                _check_size(*picture.size)
                return _pixels(picture)
    except _Refused:
        raise
    except _PILLOW_ERRORS as error:
        raise ValueError(f"cannot be decoded ({type(error).__name__}: {error})") from None


class _Refused(ValueError):
    """Our own refusal, as against an error of Pillow's."""


def _guarded(picture: Image.Image) -> np.ndarray:
    try:
        _check_size(*picture.size)
        return _pixels(picture)
    except _Refused:
        raise
    except _PILLOW_ERRORS as error:
        raise ValueError(f"cannot be decoded ({type(error).__name__}: {error})") from None


def _check_png(data: bytes) -> None:
    """Follow the chunks to the end; Pillow itself reads no checksum of the pixels and does not miss the end mark."""
    at = 8
    while True:
        if at + 12 > len(data):
            raise ValueError("was cut: the PNG has no end mark")
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(data):
            raise ValueError("was cut: the PNG ends inside a chunk")
        if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("is damaged: a checksum of the PNG does not hold")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise _Refused(f"has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise _Refused(f"is {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are taken")


def _pixels(picture: Image.Image) -> np.ndarray:
    picture.load()
    if picture.info.keys() & _TURNING:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return np.array(picture)
    if picture.mode.startswith("I"):
        return _from_array(np.asarray(picture))
    if picture.mode == "F":
        raise _Refused("holds 32-bit fractions, which have no defined range; give 8 or 16 bits")
    if "transparency" in picture.info or picture.mode in {"RGBA", "RGBa", "LA", "La", "PA"}:
        top = picture.convert("RGBA")
        white = Image.new("RGBA", top.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, top)
    return np.array(picture.convert("RGB"))


def _from_array(array: np.ndarray) -> np.ndarray:
    """An array (height, width), or (height, width, 1, 3 or 4), of 8 or 16 bits."""
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 3, 4}):
        raise _Refused(f"has shape {array.shape}; a picture is (height, width) or (height, width, 1, 3 or 4)")
    _check_size(array.shape[1], array.shape[0])
    if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65_535:  # Pillow's mode I
        array = array.astype(np.uint16)
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype != np.uint8:
        raise _Refused(f"holds {array.dtype}; a picture is uint8 (0 to 255) or uint16")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 4:
        return _pixels(Image.fromarray(array, "RGBA"))
    return np.ascontiguousarray(array)
