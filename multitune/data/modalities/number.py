"""Numbers: finite, written with a point and, where wanted, an exponent. For answers.

At most 1e100 either way: their squares are summed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from multitune.core import catalog
from multitune.core.protocols import Modality
from multitune.core.randomness import generator

_WRITTEN = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)

LARGEST = 1e100


class Options(catalog.Options):
    """No options."""


class Numbers:
    """The modality of numbers; a decoded one is a finite float."""

    name = "number"
    media = False
    towers: tuple[str, ...] = ()
    max_bytes = 1_000
    magic: Mapping[str, tuple[tuple[int, bytes], ...]] = {}

    def decode(self, value: Any) -> float:
        """The number in a cell. Raises ValueError."""
        if isinstance(value, str):
            if not _WRITTEN.fullmatch(value.strip()):
                raise ValueError(f"found {value[:40]!r}, not a number")
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"found {type(value).__name__}, not a number")
        if not math.isfinite(value):
            raise ValueError(f"found {value}, which is not finite")
        if abs(value) > LARGEST:
            raise ValueError(f"found {value:.4g}, beyond {LARGEST:g}")
        return float(value)

    def synthesize(self, seed: int) -> float:
        """A number around zero."""
        return float(generator("number", seed).standard_normal())


def build(options: Options) -> Modality:
    """The modality."""
    return Numbers()
