"""Predict one class of each category answer, or any number of labels.

A `fusion_encoder` with one head per answer, cross-entropy, accuracy and macro-F1; labels are trained by binary cross-entropy.
"""

from __future__ import annotations

from multitune.core import catalog
from multitune.core.protocols import TaskPreset


class Options(catalog.Options):
    """No options."""


def build(options: Options) -> TaskPreset:
    """The preset."""
    return TaskPreset(
        family="fusion_encoder",
        loss="cross_entropy",
        metrics={"category": ("classification",), "labels": ("multi_label",), "number": ("regression",)},
        answers=("category", "labels"),
        min_answers=1,
        losses={"labels": "multi_label", "number": "regression"},
    )
