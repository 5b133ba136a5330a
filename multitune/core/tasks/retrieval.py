"""Bring the parts of a sample together in one space, so that each finds the other.

A `dual_encoder`, symmetric contrastive loss, recall at 1, 5 and 10 and the median rank in every direction.
"""

from __future__ import annotations

from multitune.core import catalog
from multitune.core.protocols import TaskPreset


class Options(catalog.Options):
    """No options."""


def build(options: Options) -> TaskPreset:
    """The preset."""
    return TaskPreset(family="dual_encoder", loss="contrastive", metrics={"": ("retrieval",)})
