"""Text: UTF-8, taken as it is; NUL and lone surrogates, which no tokenizer takes, are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import Modality
from multitune.core.randomness import generator

MAX_CHARACTERS = 1 << 20
_WORDS = ("a", "bright", "small", "red", "circle", "near", "two", "blue", "stars", "under", "the", "quiet", "slow", "river")


class Options(catalog.Options):
    """What the recipe may say about a text part."""

    max_length: int = Field(default=0, ge=0, description="Tokens kept; 0: as many as the tower takes.")


class Texts:
    """The modality of text; a decoded one is a str."""

    name = "text"
    media = False
    towers: tuple[str, ...] = ("text",)
    max_bytes = 4 * MAX_CHARACTERS
    magic: Mapping[str, tuple[tuple[int, bytes], ...]] = {}

    def decode(self, value: Any) -> str:
        """The text of a cell. Raises ValueError."""
        if isinstance(value, bytes):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"is not UTF-8 text (byte {error.start})") from None
        if not isinstance(value, str):
            raise ValueError(f"found {type(value).__name__}, not a text")
        if len(value) > MAX_CHARACTERS:
            raise ValueError(f"has {len(value):,} characters; at most {MAX_CHARACTERS:,} are taken")
        return repaired(value)

    def synthesize(self, seed: int) -> str:
        """A few words, 2 to 12."""
        rng = generator("text", seed)
        return " ".join(rng.choice(_WORDS, size=int(rng.integers(2, 13))))


def build(options: Options) -> Modality:
    """The modality."""
    return Texts()


def repaired(text: str) -> str:
    """The text without NUL and without lone surrogates."""
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return "".join(c for c in text if c != "\0" and not "\ud800" <= c <= "\udfff")
