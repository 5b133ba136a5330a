"""Write a text from a text: translate, shorten, answer.

A `generative` model (T5 or a language model, say, as `model.pretrained`), cross-entropy on the answer's tokens, BLEU and exact match.
"""

from __future__ import annotations

from multitune.core import catalog
from multitune.core.protocols import TaskPreset


class Options(catalog.Options):
    """No options."""


def build(options: Options) -> TaskPreset:
    """The preset."""
    return TaskPreset(family="generative", loss="cross_entropy", metrics={"text": ("text",)}, answers=("text",), min_answers=1)
