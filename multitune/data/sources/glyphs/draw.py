"""Letters and digits as 64 x 64 pictures: warped, cropped, blurred down to a few pixels and back."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

SIDE = 64
CANVAS = 128
EM = 92  # pixels of the font on the canvas; the scale around it gives 70 to 110

Field = npt.NDArray[np.float32]


def draw(rng: np.random.Generator, character: str) -> Image.Image:
    """One character in RGB: dark on light or light on dark, some in colour, some blurred as if scanned at 8 to 24 pixels."""
    tight = rng.random() < 0.6
    ink = _warped(rng, _inked(character, int(rng.integers(6))), tight=tight)
    ink = _coarse(rng, ink, smallest=8 if tight else 14)
    noise = rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32) * np.float32(rng.uniform(0, 12))
    paper, pen = _colours(rng)
    pixels = paper + (pen - paper) * ink[..., None] + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@lru_cache(maxsize=512)
def _inked(character: str, stroke: int) -> Field:
    """The character in the middle of a canvas of 128 pixels, ink 1 on paper 0."""
    font = ImageFont.load_default(EM)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, so its built-in font cannot be scaled")
    image = Image.new("L", (CANVAS, CANVAS))
    ImageDraw.Draw(image).text((CANVAS / 2, CANVAS / 2), character, fill=255, font=font, anchor="mm", stroke_width=stroke)
    return np.asarray(image, np.float32) / np.float32(255)


def _warped(rng: np.random.Generator, ink: Field, *, tight: bool) -> Field:
    """Scale, shear, turn and bend the character, and fit the result, cropped to the ink (tight) or loosely, into 64 pixels."""
    angle, shear = math.radians(rng.uniform(-14, 14)), rng.uniform(-0.35, 0.35)
    across, down = rng.uniform(0.76, 1.2, 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    back = np.linalg.inv(turn @ np.array([[1, shear], [0, 1]]) @ np.diag([across, down]))
    low, high = _reach(ink, np.linalg.inv(back))
    middle, spread = (low + high) / 2, high - low
    if tight:
        spread = spread * rng.uniform(1.0, 1.15, 2)
        spread = np.maximum(spread, spread.max() * rng.uniform(0.5, 1.0))
    else:
        spread = np.full(2, rng.uniform(100, 150))
        middle = middle + rng.uniform(-0.5, 0.5, 2) * np.maximum(spread - (high - low), 0)
    steps = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE - 0.5
    x, y = np.meshgrid(middle[0] + steps * spread[0], middle[1] + steps * spread[1])
    bend = rng.uniform(0, 5)
    x, y = x + bend * _smooth(rng), y + bend * _smooth(rng)
    return _sample(ink, back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y)


def _reach(ink: Field, forward: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """The box of the moved ink: lowest and highest (x, y) from the canvas's middle."""
    y, x = np.nonzero(ink[::2, ::2] > 0.5)
    moved = forward @ (np.stack([x, y]) * 2.0 - CANVAS / 2)
    return moved.min(axis=1) - 2, moved.max(axis=1) + 2


def _smooth(rng: np.random.Generator) -> Field:
    """A smooth random field in about -1..1."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (4, 4)).astype(np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)


def _sample(ink: Field, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> Field:
    """Bilinear values of the canvas at places measured from its middle; paper outside."""
    x = np.clip(x + CANVAS / 2, 0, CANVAS - 1.01)
    y = np.clip(y + CANVAS / 2, 0, CANVAS - 1.01)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right_share, low_share = x - left, y - top
    flat, at = ink.ravel(), top * CANVAS + left
    upper = flat[at] * (1 - right_share) + flat[at + 1] * right_share
    lower = flat[at + CANVAS] * (1 - right_share) + flat[at + CANVAS + 1] * right_share
    blended: Field = (upper * (1 - low_share) + lower * low_share).astype(np.float32)
    return blended


def _coarse(rng: np.random.Generator, ink: Field, *, smallest: int) -> Field:
    """Often: down to `smallest` to 24 pixels and back up, as a small scan is."""
    if rng.random() < 0.25:
        return ink
    # The logarithm is uniform, so that the smallest sizes, which are the hardest, are drawn most.
    side = int(smallest * (24.99 / smallest) ** rng.random())
    small = Image.fromarray(ink).resize((side, side), Image.Resampling.BOX)
    way = Image.Resampling.BILINEAR if rng.random() < 0.5 else Image.Resampling.BICUBIC
    return np.asarray(small.resize((SIDE, SIDE), way), np.float32)


def _colours(rng: np.random.Generator) -> tuple[Field, Field]:
    """Paper and pen (3,): grey in most cases, either of them the darker one."""
    dark, light = rng.uniform(0, 70), rng.uniform(185, 255)
    paper, pen = np.full(3, light, np.float32), np.full(3, dark, np.float32)
    if rng.random() < 0.3:
        paper = np.clip(paper - rng.uniform(0, 60, 3), 0, 255).astype(np.float32)
        pen = np.clip(pen + rng.uniform(0, 110, 3) * rng.integers(0, 2, 3), 0, 255).astype(np.float32)
    return (pen, paper) if rng.random() < 0.5 else (paper, pen)
