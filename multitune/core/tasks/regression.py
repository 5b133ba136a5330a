"""Predict one number for each number answer.

A `fusion_encoder` with one head per answer, squared error on standardised values, MAE and R2 in the user's units.
"""

from __future__ import annotations

from multitune.core import catalog
from multitune.core.protocols import TaskPreset


class Options(catalog.Options):
    """No options."""


def build(options: Options) -> TaskPreset:
    """The preset."""
    return TaskPreset(family="fusion_encoder", loss="regression", metrics={"number": ("regression",)}, answers=("number",), min_answers=1)
