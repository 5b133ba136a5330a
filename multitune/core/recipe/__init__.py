"""A Recipe is what was asked: YAML 1.2 core, checked, with overrides, before anything is expanded. One file a section."""

from multitune.core.recipe.average import AverageSpec, Ema, Interpolate, Soup
from multitune.core.recipe.bucket import BucketSpec
from multitune.core.recipe.component import Component, Strict, step_or_share, steps_of
from multitune.core.recipe.data import DataSpec, JoinSpec, Missing, MixEntry, PartSpec, SplitSpec
from multitune.core.recipe.evaluate import EvaluateSpec
from multitune.core.recipe.strategy import Phase, TuningRow
from multitune.core.recipe.train import EarlyStop, TrainSpec
from multitune.core.recipe.whole import CHANGEABLE, MAX_BYTES, Recipe, differences, make_recipe, read_recipe

__all__ = [
    "CHANGEABLE", "MAX_BYTES", "AverageSpec", "BucketSpec", "Component", "DataSpec", "EarlyStop", "Ema", "EvaluateSpec", "Interpolate",
    "JoinSpec", "Missing", "MixEntry", "PartSpec", "Phase", "Recipe", "Soup", "SplitSpec", "Strict", "TrainSpec", "TuningRow",
    "differences", "make_recipe", "read_recipe", "step_or_share", "steps_of",
]  # fmt: skip
