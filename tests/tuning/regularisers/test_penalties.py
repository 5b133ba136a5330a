"""Penalties have the gradient of their formulas, once a step; clipping by value; drift is a relative distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core.errors import RecipeError
from multitune.core.recipe import Component, make_recipe
from multitune.models import anatomy
from multitune.tuning import events
from multitune.tuning.gradients import Gradients
from multitune.tuning.plan.regularising import pulls, reference_bytes, regulariser_values
from multitune.tuning.plan.table import Moves
from multitune.tuning.regularisers.penalties import Penalties
from multitune.tuning.regularisers.start import Start, told
from multitune.tuning.step import Step
from tests.tuning.fitting import DyingSteps, Killed, bits, fit
from tests.tuning.small import Small, cut, rows, scope_of, small
from tests.tuning.test_gradients import gradient, loss_for


def stepped(family: Small, sizes: tuple[int, ...] = (8,), **options: Any) -> dict[str, torch.Tensor]:
    """The gradients that the optimizer got in one step of SGD at rate 1, by how far each tensor moved; and the penalty."""
    scope = scope_of(family)
    before = {entry.name: entry.parameter.detach().clone() for entry in scope.entries}
    optimizer = torch.optim.SGD([entry.parameter for entry in scope.entries], lr=1.0)
    asked_for: dict[str, Any] = {"clip_norm": 0.0, **options}
    step = Step(Gradients(family, loss_for(family.needs), 0), scope=scope, optimizer=optimizer, **asked_for)
    report = step(0, cut(rows(family, 8), sizes))
    slopes = {entry.name: before[entry.name] - entry.parameter.detach() for entry in scope.entries}
    return slopes | {"penalty": torch.tensor(report.penalty)}


def moved(family: Small, by: float = 0.01) -> Small:
    """The model after every tensor moved."""
    for parameter in family.parameters():
        parameter.data.add_(by * torch.sign(parameter.data) + by)
    return family


def test_l2_sp_pulls_the_towers_alone_to_where_they_started() -> None:
    start = Start.of(scope_of(small("classify")), on_device=True)
    plain, pulled = stepped(moved(small("classify"))), stepped(moved(small("classify")), penalties=Penalties(l2_sp=0.5, start=start))
    now = {entry.name: entry.parameter.detach() for entry in scope_of(moved(small("classify"))).entries}
    assert {name for name in start.weights if not name.startswith("words.")} == set()
    total = 0.0
    for name, weight in now.items():
        if name in start.weights and pulled[name].abs().sum() > 0:
            torch.testing.assert_close(pulled[name] - plain[name], 0.5 * (weight - start.weights[name]), atol=1e-6, rtol=1e-4)
            total += 0.25 * float((weight - start.weights[name]).square().sum())
        elif name not in start.weights:
            assert torch.equal(pulled[name], plain[name]), name
    assert float(pulled["penalty"]) == pytest.approx(total, rel=1e-4)


def test_l1_and_l2_are_on_what_decays() -> None:
    family = small("classify")
    weights = {entry.name: (entry.parameter.detach().clone(), entry.decays) for entry in scope_of(family).entries}
    plain, both = stepped(small("classify")), stepped(small("classify"), penalties=Penalties(l1=0.2, l2=0.3))
    for name, (weight, decays) in weights.items():
        expected = 0.2 * weight.sign() + 0.3 * weight if decays and plain[name].abs().sum() > 0 else torch.zeros_like(weight)
        torch.testing.assert_close(both[name] - plain[name], expected, atol=1e-6, rtol=1e-4)


def test_a_penalty_counts_once_however_the_step_is_cut() -> None:
    penalties = Penalties(l2=0.3)
    whole, pieces = (stepped(small("classify"), sizes, penalties=penalties) for sizes in ((8,), (1,) * 8))
    assert all((pieces[name] - value).norm() <= 1e-5 * value.norm() + 1e-7 for name, value in whole.items())


def test_clipping_by_value_cuts_each_number() -> None:
    plain, clipped = stepped(small("classify")), stepped(small("classify"), clip_value=0.01)
    assert max(float(value.abs().max()) for name, value in plain.items() if name != "penalty") > 0.02
    for name in plain:
        torch.testing.assert_close(clipped[name], plain[name].clamp(-0.01, 0.01), atol=1e-6, rtol=0)


def test_what_is_clipped_has_the_penalties_in_it() -> None:
    clipped = stepped(small("classify"), clip_norm=0.05, penalties=Penalties(l2=10.0))
    norm = torch.stack([value.norm() for name, value in clipped.items() if name != "penalty"]).norm()
    assert float(norm) == pytest.approx(0.05, rel=1e-3)


def test_drift_is_the_distance_over_the_norm_of_each_block() -> None:
    family = small("classify")
    scope = scope_of(family)
    start = Start.of(scope, on_device=False)
    assert set(start.drift(scope).values()) == {0.0}
    for name, parameter in family.tower["words"].named_parameters():
        if "layer.1." in name:
            parameter.data.mul_(1.25)
    found = start.drift(scope)
    block = next(name for name in found if name.endswith("layer.1"))
    assert found[block] == pytest.approx(0.25, rel=1e-5)
    assert {name: value for name, value in found.items() if value} == {block: found[block]}
    assert "drift/words" in found
    assert f"{block.removeprefix('drift/')} by 25.00% of its norm" in told(found)[0].message


def test_a_killed_run_goes_on_to_the_same_bits_and_tells_the_drift(tmp_path: Path) -> None:
    """What l2_sp pulls towards is where the run started, not where it went on."""
    changes: dict[str, Any] = {"l2_sp": 0.5, "l1": 1e-4, "clip_value": 0.05, "clip_norm": 0.0, "drift": True}
    whole, killed, resumed = (small("classify", dropout=0.2) for _ in range(3))
    outcome = fit(whole, tmp_path / "whole", **changes)
    loader = DyingSteps(killed)
    loader.last = 5
    with pytest.raises(Killed):
        fit(killed, tmp_path / "killed", loader=loader, **changes)
    again = fit(resumed, tmp_path / "killed", **changes)
    assert bits(resumed) == bits(whole)
    drift = {name: value for name, value in outcome.figures.items() if name.startswith("drift/")}
    assert drift
    assert drift == {name: again.figures[name] for name in drift}
    assert [finding.code for finding in outcome.findings if finding.code == "drift"] == ["drift"]
    seen = {(event["step"], event["name"]) for event in events.read(tmp_path / "whole" / "events.jsonl")}
    assert {(8, name) for name in drift} | {(8, "train/penalty")} <= seen


def asked(**train: Any) -> Any:
    data = {"source": "digits", "parts": {"image": "image", "label": "category"}, "answers": ["label"]}
    return make_recipe({"name": "x", "task": "classification", "data": data, "train": train})


def test_the_plan_tells_what_is_on_and_the_bytes_of_the_copy() -> None:
    names = anatomy.find(small("classify"))
    moves = [Moves("words", 100, 80, 30, (), (), ()), Moves("head", 20, 20, 0, (), (), ())]
    told_values = regulariser_values(asked(l2_sp=0.1, clip_value=0.5))
    assert {name: value.value for name, value in told_values.items()} == {
        "train.clip_norm": 0.0,
        "train.l2_sp": 0.1,
        "train.clip_value": 0.5,
    }
    assert list(regulariser_values(asked())) == ["train.clip_norm"]
    assert reference_bytes(asked(l2_sp=0.1), names, moves)["moves.reference_bytes"].value == 4 * 50
    assert reference_bytes(asked(), names, moves) == {}
    assert [finding.code for finding in pulls(asked(l2_sp=0.1), names)] == ["two-pulls"]
    assert list(pulls(asked(l2_sp=0.1, weight_decay=0), names)) == []
    twice = asked(balance="label").model_copy(update={"loss": Component(name="cross_entropy", options={"weights": "balanced"})})
    assert [finding.code for finding in pulls(twice, names)] == ["weighed-twice"]


def test_what_does_not_hang_together_is_named() -> None:
    with pytest.raises(RecipeError, match=r"clip_norm 1 and clip_value 0.5 are both stated, and only one can hold: leave one out"):
        asked(clip_norm=1.0, clip_value=0.5)
    with pytest.raises(RecipeError, match="none of them moves"):
        reference_bytes(asked(l2_sp=0.1), anatomy.find(small("classify")), [Moves("words", 100, 30, 30, (), (), ())])


def test_the_gradient_without_any_is_what_it_was() -> None:
    family = small("classify")
    assert torch.equal(gradient(family, cut(rows(family, 8), (4, 4))), gradient(small("classify"), cut(rows(family, 8), (4, 4))))
