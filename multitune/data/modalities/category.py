"""Categories: one of a few classes, named by text. For answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multitune.core import catalog
from multitune.core.protocols import Modality
from multitune.core.randomness import generator

MAX_CHARACTERS = 1_000


class Options(catalog.Options):
    """No options."""


class Categories:
    """The modality of classes; a decoded one is a str."""

    name = "category"
    media = False
    towers: tuple[str, ...] = ()
    max_bytes = 4 * MAX_CHARACTERS
    magic: Mapping[str, tuple[tuple[int, bytes], ...]] = {}

    def decode(self, value: Any) -> str:
        """The class that a cell names. Raises ValueError."""
        if not isinstance(value, str):
            raise ValueError(f"found {type(value).__name__}, not the name of a class")
        if len(value) > MAX_CHARACTERS:
            raise ValueError(f"has {len(value):,} characters; the name of a class has at most {MAX_CHARACTERS:,}")
        return value

    def synthesize(self, seed: int) -> str:
        """One of three classes."""
        return "abc"[int(generator("category", seed).integers(3))]


def build(options: Options) -> Modality:
    """The modality."""
    return Categories()
