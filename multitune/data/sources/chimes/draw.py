"""Pictures of 64 x 64: one shape on a textured background among distractors, with noise."""

from __future__ import annotations

import colorsys
import io
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from multitune.data.sources.chimes.words import COLOURS, Domain

SIDE = 64
FINE = 4  # the shape's mask is drawn this many times larger and reduced, for smooth edges
RADIUS = (9.0, 20.0)

Pixels = npt.NDArray[np.floating[Any]]
# Hue in degrees, saturation, value: far enough apart to stay themselves under the jitter of `_paint`.
PALETTE = {
    "red": (0, 0.92, 0.88),
    "orange": (28, 0.95, 1.0),
    "yellow": (56, 0.9, 1.0),
    "green": (125, 0.85, 0.72),
    "cyan": (182, 0.8, 0.95),
    "blue": (222, 0.88, 0.95),
    "purple": (274, 0.8, 0.78),
    "pink": (325, 0.5, 1.0),
}
_COLUMNS: Pixels = np.arange(SIDE, dtype=np.float32)[None, :]
_ROWS: Pixels = _COLUMNS.T


@dataclass(frozen=True)
class Backdrop:
    """What the pictures of a scene share: the background (64, 64, 3) in 0..255 and the noise (standard deviation)."""

    pixels: npt.NDArray[np.uint8]
    noise: float


def backdrop(rng: np.random.Generator, *, domain: Domain) -> Backdrop:
    """A dull textured background; `base` has ramps, stripes and clouds, `target` checks, rings and grain, and more noise."""
    level = rng.uniform(0.12, 0.5) if domain == "base" else rng.uniform(0.25, 0.62)
    first = _rgb(rng.uniform(0, 360), rng.uniform(0.0, 0.3), level)
    second = _rgb(rng.uniform(0, 360), rng.uniform(0.0, 0.3), level + rng.uniform(0.08, 0.2) * rng.choice([-1, 1]))
    textures = (_ramp, _stripes, _clouds) if domain == "base" else (_checks, _rings, _grain)
    blend = textures[int(rng.integers(len(textures)))](rng)[..., None]
    noise = rng.uniform(2, 11) if domain == "base" else rng.uniform(5, 15)
    return Backdrop(_bytes(first * (1 - blend) + second * blend), noise)


def draw(rng: np.random.Generator, *, shape: str, colour: str, scene: Backdrop, domain: Domain) -> Image.Image:
    """One shape of any size, place and rotation over 3 to 6 smaller distractors."""
    image = Image.fromarray(scene.pixels)
    _distract(rng, ImageDraw.Draw(image), domain=domain)
    image.paste(_paint(rng, colour, domain=domain), mask=_mask(rng, shape))
    noise = rng.standard_normal((SIDE, SIDE, 3), dtype=np.float32) * np.float32(scene.noise)
    return Image.fromarray(_bytes(np.asarray(image, np.float32) + noise))


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file, packed by run lengths only: noise hardly shrinks, and a search for repeats takes a quarter longer."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def _mask(rng: np.random.Generator, shape: str) -> Image.Image:
    radius, angle = rng.uniform(*RADIUS), rng.uniform(0, 2 * math.pi)
    centre = rng.uniform(0.95 * radius, SIDE - 0.95 * radius, 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    mask = Image.new("L", (SIDE * FINE, SIDE * FINE))
    pen = ImageDraw.Draw(mask)
    for outline, fill in OUTLINES[shape]:
        points = (outline @ turn.T * radius + centre) * FINE
        pen.polygon(points.ravel().tolist(), fill=fill)
    return mask.reduce(FINE)


def _paint(rng: np.random.Generator, colour: str, *, domain: Domain) -> Image.Image:
    """A full picture of the colour, shaded along one direction; `target` turns the hue, dulls it and adds stripes."""
    hue, saturation, value = PALETTE[colour]
    if domain == "base":
        rgb = _rgb(hue + rng.uniform(-6, 6), saturation * rng.uniform(0.9, 1.0), value * rng.uniform(0.88, 1.0))
    else:
        rgb = _rgb(hue + rng.uniform(0, 9), saturation * rng.uniform(0.68, 0.88), value * rng.uniform(0.82, 1.0))
    shade = 1 + rng.uniform(0, 0.12) * (2 * _ramp(rng) - 1)
    if domain == "target" and rng.random() < 0.5:
        shade *= 1 - rng.uniform(0.1, 0.28) * _stripes(rng)
    return Image.fromarray(_bytes(rgb * shade[..., None]))


def _distract(rng: np.random.Generator, pen: ImageDraw.ImageDraw, *, domain: Domain) -> None:
    kinds = ("dot", "line", "arc") if domain == "base" else ("dot", "line", "box")
    for _ in range(int(rng.integers(3, 7))):
        hue, saturation, value = PALETTE[COLOURS[int(rng.integers(len(COLOURS)))]]
        red, green, blue = _bytes(_rgb(hue, saturation * rng.uniform(0.4, 1), value * rng.uniform(0.5, 0.9))).tolist()
        x, y = rng.uniform(2, SIDE - 2, 2)
        reach, angle = rng.uniform(1.5, 4.0), rng.uniform(0, 360)
        ink, box = (red, green, blue), (x - reach, y - reach, x + reach, y + reach)
        match kinds[int(rng.integers(3))]:
            case "dot":
                pen.ellipse(box, fill=ink)
            case "line":
                along = 3 * reach * np.array([math.cos(angle), math.sin(angle)])
                pen.line((x - along[0], y - along[1], x + along[0], y + along[1]), fill=ink, width=int(rng.integers(1, 3)))
            case "arc":
                pen.arc((x - 2 * reach, y - 2 * reach, x + 2 * reach, y + 2 * reach), angle, angle + 110, fill=ink, width=2)
            case _:
                pen.rectangle((x - reach, y - reach / 2, x + reach, y + reach / 2), fill=ink)


def _rgb(hue: float, saturation: float, value: float) -> Pixels:
    """A colour (3,) in 0..255 from a hue in degrees."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, max(value, 0.05)), np.float32) * 255


def _bytes(values: Any) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return pixels


def _axis(rng: np.random.Generator) -> Pixels:
    """The distance in pixels along a random direction from the middle, (64, 64)."""
    angle = rng.uniform(0, 2 * math.pi)
    return (_COLUMNS - SIDE / 2) * np.float32(math.cos(angle)) + (_ROWS - SIDE / 2) * np.float32(math.sin(angle))


def _ramp(rng: np.random.Generator) -> Pixels:
    return _axis(rng) / np.float32(SIDE * math.sqrt(2)) + np.float32(0.5)


def _wave(phase: Pixels) -> Pixels:
    values: Pixels = np.float32(0.5) + np.float32(0.5) * np.sin(phase)
    return values


def _stripes(rng: np.random.Generator) -> Pixels:
    period = np.float32(rng.uniform(5, 16))
    return _wave(_axis(rng) * np.float32(2 * math.pi) / period)


def _clouds(rng: np.random.Generator) -> Pixels:
    coarse = Image.fromarray(rng.random((6, 6), dtype=np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)


def _checks(rng: np.random.Generator) -> Pixels:
    size = rng.uniform(5, 12)
    return ((_axis(rng) // size + _axis(rng) // size) % 2).astype(np.float32)


def _rings(rng: np.random.Generator) -> Pixels:
    x, y = rng.uniform(0, SIDE, 2)
    return _wave(np.hypot(_COLUMNS - np.float32(x), _ROWS - np.float32(y)) / np.float32(rng.uniform(1, 3)))


def _grain(rng: np.random.Generator) -> Pixels:
    coarse = Image.fromarray(rng.random((24, 24), dtype=np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)


def _round(radius: float, *, x: float = 0.0) -> npt.NDArray[np.float64]:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return np.stack([np.cos(angles) * radius + x, np.sin(angles) * radius], axis=1)


def _spokes(*radii: float, count: int) -> npt.NDArray[np.float64]:
    lengths = np.resize(np.array(radii), count)
    angles = np.arange(count) * 2 * math.pi / count
    return np.stack([np.cos(angles) * lengths, np.sin(angles) * lengths], axis=1)


def _moon() -> npt.NDArray[np.float64]:
    outer, inner = np.linspace(0.9, 2 * math.pi - 0.9, 36), np.linspace(2 * math.pi - 1.45, 1.45, 36)
    left = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    bite = math.sin(0.9) / math.sin(1.45)
    right = np.stack([np.cos(inner) * bite + math.cos(0.9) - bite * math.cos(1.45), np.sin(inner) * bite], axis=1)
    return np.concatenate([left, right]) * 1.08


def _heart() -> npt.NDArray[np.float64]:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x, y = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2], axis=1) / 15.0


def _cross(arm: float) -> npt.NDArray[np.float64]:
    corner = [(1.05, -arm), (1.05, arm), (arm, arm), (arm, 1.05), (-arm, 1.05), (-arm, arm)]
    return np.array(corner + [(-x, -y) for x, y in corner])


OUTLINES: dict[str, tuple[tuple[npt.NDArray[np.float64], int], ...]] = {
    "circle": ((_round(0.95), 255),),
    "triangle": ((_spokes(1.15, count=3), 255),),
    "cross": ((_cross(0.33), 255),),
    "moon": ((_moon(), 255),),
    "square": ((_spokes(1.12, count=4), 255),),
    "star": ((_spokes(1.15, 0.47, count=10), 255),),
    "ring": ((_round(1.0), 255), (_round(0.55), 0)),
    "heart": ((_heart(), 255),),
}
"""Outlines around a radius of about 1, filled one after another: 255 adds, 0 cuts out."""
