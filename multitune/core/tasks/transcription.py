"""Write down what a sound says.

A `generative` model (Whisper, say, as `model.pretrained`), cross-entropy on the answer's tokens, BLEU and exact match.
"""

from __future__ import annotations

from multitune.core import catalog
from multitune.core.protocols import TaskPreset


class Options(catalog.Options):
    """No options."""


def build(options: Options) -> TaskPreset:
    """The preset."""
    return TaskPreset(family="generative", loss="cross_entropy", metrics={"text": ("text",)}, answers=("text",), min_answers=1)
