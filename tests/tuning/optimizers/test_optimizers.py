"""Every optimizer: torch's own numbers, its whole state through a kill, and the bytes that the plan says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from multitune.core import catalog
from multitune.core.errors import PluginError, RecipeError
from multitune.core.recipe import make_recipe
from multitune.tuning import optimizer
from multitune.tuning.plan.optimizing import optimizer_plugin, optimizer_values, state_bytes
from multitune.tuning.scope import Scope
from tests.tuning.fitting import DyingSteps, Killed, bits, fit
from tests.tuning.small import Small, scope_of, small

KINDS: dict[str, dict[str, Any]] = {"adamw": {}, "adam": {}, "sgd": {"momentum": 0.8, "nesterov": True}, "adafactor": {"threshold": 1.5}}
HERE = [name for name in catalog.names("optimizer") if name != "adamw_8bit"]


def plain(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The same as one writes it with torch alone."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.01, momentum=0.8, nesterov=True)
    if name == "adafactor":
        return torch.optim.Adafactor(groups, lr=0.01, d=1.5)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr=0.01, betas=(0.8, 0.9), eps=1e-6)


def asked(name: str, **train: Any) -> Any:
    data = {"source": "digits", "parts": {"image": "image", "label": "category"}, "answers": ["label"]}
    return make_recipe(
        {"name": "x", "task": "classification", "data": data, "train": {"optimizer": {"name": name, **KINDS.get(name, {})}, **train}}
    )


def walked(family: Small, made: torch.optim.Optimizer, *, steps: range = range(3)) -> None:
    """Steps of made-up gradients; a late tensor has none in the first."""
    for step in steps:
        rng = torch.Generator().manual_seed(step)
        for place, parameter in enumerate(family.parameters()):
            parameter.grad = None if step == 0 and place == 0 else torch.randn(parameter.shape, generator=rng)
        made.step()


@pytest.mark.parametrize("name", HERE)
def test_each_takes_the_steps_that_plain_torch_takes(name: str) -> None:
    ours, theirs = small("classify"), small("classify")
    made = optimizer.build(scope_of(ours), betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1, name=name, options=KINDS[name])
    for group in made.param_groups:
        group["lr"] = 0.01
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    others = [p for p in theirs.parameters() if p.ndim < 2]
    walked(ours, made)
    walked(theirs, plain(name, [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]))
    untouched = dict(small("classify").named_parameters())
    for (at, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert not torch.equal(one, untouched[at]), at


@pytest.mark.parametrize("name", HERE)
def test_a_killed_run_goes_on_to_the_same_bits_with_each(tmp_path: Path, name: str) -> None:
    changes: dict[str, Any] = {"optimizer": name, **{f"optimizer.{option}": value for option, value in KINDS[name].items()}}
    whole, killed, resumed = (small("classify", dropout=0.2) for _ in range(3))
    fit(whole, tmp_path / "whole", **changes)
    loader = DyingSteps(killed)
    loader.last = 5
    with pytest.raises(Killed):
        fit(killed, tmp_path / "killed", loader=loader, **changes)
    fit(resumed, tmp_path / "killed", **changes)
    assert bits(resumed) == bits(whole)
    assert bits(whole) != bits(small("classify"))


@pytest.mark.parametrize("name", HERE)
def test_the_state_has_the_bytes_that_the_plan_says(name: str) -> None:
    family = small("classify")
    scope = scope_of(family)
    made = optimizer.build(scope, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0, name=name, options=KINDS[name])
    walked(family, made)
    held = {key: value for key, value in optimizer.moments(made, scope).items() if not key.endswith("|step")}
    planned = state_bytes(optimizer_plugin(asked(name)), (tuple(entry.parameter.shape) for entry in scope.entries))
    assert planned == sum(value.numel() * value.element_size() for value in held.values())


@pytest.mark.parametrize("name", catalog.names("optimizer"))
def test_each_states_what_the_plan_asks_of_it(name: str) -> None:
    module = catalog.load("optimizer", name)
    assert set(module.READS) <= {"betas", "eps"}
    assert module.DECAY in ("coupled", "decoupled")
    assert module.STATE
    assert module.state_bytes(module.Options(), (2, 3)) >= 0


def test_an_optimizer_without_a_state_plans_none() -> None:
    plugin = catalog.find("optimizer", "sgd", {"momentum": 0.0})
    assert state_bytes(plugin, [(3, 4), (5,)]) == 0


def test_of_eight_bits_large_tensors_take_a_quarter() -> None:
    plugin = catalog.find("optimizer", "adamw_8bit")
    assert state_bytes(plugin, [(64, 64), (10,)]) == 2 * 4096 + 2 * 4 * 16 + 80


def test_the_plan_tells_the_options_and_whether_the_decay_is_part_of_the_gradient() -> None:
    recipe = asked("sgd", weight_decay=0.01)
    told = optimizer_values(recipe, optimizer_plugin(recipe))
    assert {name: value.value for name, value in told.items()} == {
        "train.optimizer": "sgd",
        "train.optimizer.momentum": 0.8,
        "train.optimizer.nesterov": True,
        "train.weight_decay": 0.01,
    }
    assert told["train.weight_decay"].note == "as a part of the gradient"


def test_what_does_not_hang_together_is_named() -> None:
    with pytest.raises(RecipeError, match=r"train\.betas: sgd does not read it"):
        optimizer_plugin(asked("sgd", betas=[0.9, 0.9]))
    with pytest.raises(PluginError, match='Did you mean "adamw"'):
        optimizer_plugin(asked("admw"))
    with pytest.raises(PluginError, match="nesterov looks ahead along the momentum, which is 0"):
        catalog.find("optimizer", "sgd", {"momentum": 0.0, "nesterov": True})


@pytest.mark.parametrize("name", [*HERE, "adamw_8bit"])
def test_a_state_that_is_put_back_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")

    def made(family: Small) -> tuple[Scope, torch.optim.Optimizer]:
        family.head["out"] = torch.nn.Linear(16, 300)
        for parameter in family.head["out"].parameters():
            torch.nn.init.constant_(parameter, 0.1)
        scope = scope_of(family)
        built = optimizer.build(scope, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1, name=name, options=KINDS.get(name, {}))
        for group in built.param_groups:
            group["lr"] = 0.01
        return scope, built

    whole, first, second = (small("classify") for _ in range(3))
    _, straight = made(whole)
    walked(whole, straight, steps=range(4))
    scope, before = made(first)
    walked(first, before, steps=range(2))
    save_file(optimizer.moments(before, scope), tmp_path / "moments")
    scope, after = made(second)
    second.load_state_dict(first.state_dict())
    optimizer.load_moments(after, scope, load_file(tmp_path / "moments"))
    walked(second, after, steps=range(2, 4))
    assert bits(second) == bits(whole)


def test_eight_bits_without_their_library_say_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    module = catalog.load("optimizer", "adamw_8bit")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"needs bitsandbytes, which is not installed. Install it .* choose adafactor"):
        module.check(module.Options())
