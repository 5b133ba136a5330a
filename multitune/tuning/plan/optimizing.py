"""The optimizer that a recipe asks for: what the plan states of it, and the one that a plan names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from multitune.core import catalog
from multitune.core.errors import RecipeError
from multitune.core.plan import Plan, Value, stated
from multitune.core.recipe import Recipe, TrainSpec
from multitune.tuning import optimizer
from multitune.tuning.scope import Scope

PREFIX = "train.optimizer."


def optimizer_plugin(recipe: Recipe) -> catalog.Plugin:
    """The optimizer that the recipe names.

    Raises: PluginError for one that is not known; RecipeError for one that cannot be built here, or `train.betas` that it does not read.
    """
    asked = recipe.train.optimizer
    plugin = catalog.find("optimizer", "adamw" if asked.name == "auto" else asked.name, asked.options, where="train.optimizer")
    for name in ("betas", "eps"):
        if recipe.train.given(name) and name not in plugin.module.READS:
            raise RecipeError(f"train.{name}", f"{plugin.name} does not read it.", "Leave it out.")
    if "check" in vars(plugin.module):
        plugin.module.check(plugin.options)
    return plugin


def optimizer_values(recipe: Recipe, plugin: catalog.Plugin) -> dict[str, Value]:
    """The optimizer's name and options, what of the recipe it reads, and the decay."""
    train = recipe.train
    values = {"train.optimizer": Value(plugin.name, "recipe" if train.given("optimizer") else "default")}
    for name, value in plugin.options.model_dump(mode="json").items():
        values[PREFIX + name] = Value(value, "recipe" if name in plugin.options.model_fields_set else "default")
    values |= stated("train", train, (*plugin.module.READS, "weight_decay"))
    if plugin.module.DECAY == "coupled":
        values["train.weight_decay"] = replace(values["train.weight_decay"], note="as a part of the gradient")
    return values


def state_bytes(plugin: catalog.Plugin, shapes: Iterable[tuple[int, ...]]) -> int:
    """Bytes of the optimizer's state for moving tensors of these shapes."""
    return sum(plugin.module.state_bytes(plugin.options, shape) for shape in shapes)


def optimizer_of(plan: Plan, scope: Scope) -> torch.optim.Optimizer:
    """The optimizer that a plan names, over what the scope moves."""
    defaults = TrainSpec()
    options = {name.removeprefix(PREFIX): value.value for name, value in plan.values.items() if name.startswith(PREFIX)}
    betas = plan["train.betas"] if "train.betas" in plan.values else defaults.betas
    eps = plan["train.eps"] if "train.eps" in plan.values else defaults.eps
    name, decay = plan["train.optimizer"], plan["train.weight_decay"]
    return optimizer.build(scope, betas=(betas[0], betas[1]), eps=eps, weight_decay=decay, name=name, options=options)
