"""Labels: any number of classes at once, also none, named by text. For answers.

A cell holds them with `|` between (`dog|ball`), or as a JSON list (`["dog", "ball"]`), as tables in memory and JSON lines do. None of them
is written `|` or `[]`: an empty cell says that the answer is not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from multitune.core import catalog
from multitune.core.protocols import Modality
from multitune.core.randomness import generator

SEPARATOR = "|"
MAX_CHARACTERS = 1_000
MAX_LABELS = 10_000


class Options(catalog.Options):
    """No options."""


class LabelSets:
    """The modality of sets of classes; a decoded one is a tuple of str, sorted, each once."""

    name = "labels"
    media = False
    towers: tuple[str, ...] = ()
    max_bytes = 4 * MAX_CHARACTERS * 100
    magic: Mapping[str, tuple[tuple[int, bytes], ...]] = {}

    def decode(self, value: Any) -> tuple[str, ...]:
        """The labels that a cell names. Raises ValueError."""
        found = _listed(value) if isinstance(value, str) else value
        if not isinstance(found, list | tuple | set | frozenset):
            raise ValueError(f"found {type(value).__name__}, not a set of labels")
        if len(found) > MAX_LABELS:
            raise ValueError(f"names {len(found):,} labels; at most {MAX_LABELS:,} are taken")
        for label in found:
            if not isinstance(label, str) or not label.strip():
                raise ValueError(f"found {label!r:.40} among the labels, which is no name")
            if len(label) > MAX_CHARACTERS:
                raise ValueError(f"has a label of {len(label):,} characters; a name has at most {MAX_CHARACTERS:,}")
        return tuple(sorted({label.strip() for label in found}))

    def synthesize(self, seed: int) -> tuple[str, ...]:
        """Some of three labels."""
        drawn = generator("labels", seed).integers(2, size=3)
        return tuple(label for label, there in zip("abc", drawn.tolist(), strict=True) if there)


def _listed(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return [label for label in text.split(SEPARATOR) if label.strip()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"begins as a JSON list and is none ({error})") from None


def build(options: Options) -> Modality:
    """The modality."""
    return LabelSets()
