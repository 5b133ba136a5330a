"""Averages of weights: along a run, over its evaluations, and with the pretrained ones; each to the bit where it can be said."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multitune.core.errors import RecipeError, StateError, Stopped
from multitune.core.finding import Severity
from multitune.core.recipe import Component, TuningRow
from multitune.tuning import checkpoint, events
from multitune.tuning.averaging.choice import Choice
from multitune.tuning.averaging.interpolation import between
from multitune.tuning.averaging.soup import Soup, mean
from tests.tuning.fitting import DyingSteps, Killed, bits, fit
from tests.tuning.small import Small, Steps, small

EMA: dict[str, Any] = {"average.ema": {"decay": 0.8, "start": 0, "warmup": True}}
LOSS = {"average.choice": {"metric": "valid/loss", "mode": "auto"}}


def soup(**options: Any) -> dict[str, Any]:
    """A soup as the plan states it, chosen by the loss where something is to choose."""
    return {"average.soup": options} | (LOSS if options.keys() & {"best", "greedy"} else {})


def back(*shares: float) -> dict[str, Any]:
    """An interpolation as the plan states it."""
    return {"average.interpolate": {"tuned": list(shares)}} | (LOSS if len(shares) > 1 else {})


def weights(family: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in family.named_parameters()}


def at_steps(folder: Path, **options: Any) -> dict[int, dict[str, Tensor]]:
    """The weights of a plain run after 0, 1, 2 ... 8 steps."""
    seen: dict[int, dict[str, Tensor]] = {0: weights(small("classify"))}
    family = small("classify")
    fit(family, folder, watch=lambda model: seen.update({len(seen): weights(model)}) or {}, evaluate_every=1, **options)
    return seen


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Tensor]]:
    """The weights of the plain run."""
    return at_steps(tmp_path_factory.mktemp("plain"))


def equal(family: torch.nn.Module, wanted: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, wanted[name]) for name, tensor in weights(family).items())


def killed_before(step: int, family: Small, folder: Path, **options: Any) -> None:
    loader = DyingSteps(family)
    loader.last = step
    with pytest.raises(Killed):
        fit(family, folder, loader=loader, **options)


# ------------------------------------------------------------------------------------------------------------- EMA


@pytest.mark.parametrize(("start", "warmup"), [(0, True), (3, False)])
def test_the_running_average_is_that_of_a_loop_by_hand(
    tmp_path: Path, plain: dict[int, dict[str, Tensor]], start: int, warmup: bool
) -> None:
    expected = {name: tensor.clone() for name, tensor in plain[start].items()}
    for step in range(start + 1, 9):
        taken = step - start
        decay = min(0.8, (1 + taken) / (10 + taken)) if warmup else 0.8
        expected = {name: torch.lerp(tensor, plain[step][name], 1 - decay) for name, tensor in expected.items()}
    family = small("classify")
    ema: dict[str, Any] = {"average.ema": {"decay": 0.8, "start": start, "warmup": warmup}}
    outcome = fit(family, tmp_path, **ema)
    assert equal(family, expected)
    assert "the average up to step 8" in outcome.summary


def test_averaging_leaves_the_training_itself_as_it_is(tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {"plain": {}, "ema": EMA}
    for name, options in cases.items():
        fit(small("classify", dropout=0.2), tmp_path / name, watch=lambda _: {"valid/loss": 1.0}, **options)
    one, other = (
        [event["value"] for event in events.read(tmp_path / name / "events.jsonl") if event["name"] == "train/loss"]
        for name in ("plain", "ema")
    )
    assert one == other


def test_the_average_of_a_tensor_is_the_tensor_itself_until_it_moves(tmp_path: Path) -> None:
    table = (TuningRow(pattern="head"), TuningRow(pattern="words.encoder.layer.1", start=4))
    seen: list[dict[str, Tensor]] = []
    family = small("classify")
    before = weights(family)
    fit(family, tmp_path, table=table, watch=lambda model: seen.append(weights(model)) or {}, evaluate_every=1, **EMA)
    name = "tower.words.encoder.layer.1.output.dense.weight"
    assert all(torch.equal(seen[place][name], before[name]) for place in range(4))
    moved = weights(family)
    assert not torch.equal(moved[name], before[name])
    first = checkpoint.read(checkpoint.at(tmp_path / "checkpoints", 8)).tensors["words.encoder.layer.1.output.dense.weight"]
    assert not torch.equal(moved[name], first)


@pytest.mark.parametrize("step", [3, 6])
def test_a_killed_run_goes_on_to_the_same_averages(tmp_path: Path, step: int) -> None:
    whole = small("classify", dropout=0.2)
    fit(whole, tmp_path / "whole", **EMA)
    killed_before(step, small("classify", dropout=0.2), tmp_path / "killed", **EMA)
    resumed = small("classify", dropout=0.2)
    loader = Steps(resumed)
    fit(resumed, tmp_path / "killed", loader=loader, **EMA)
    assert loader.taken[0] > 0
    assert bits(resumed) == bits(whole)


def test_the_averages_are_what_is_evaluated_and_the_best_of_them_is_kept(tmp_path: Path) -> None:
    kept: list[str] = []
    figures = iter([0.5, 0.9, 0.8, 0.7])

    def watch(family: Small) -> dict[str, float]:
        kept.append(bits(family))
        return {"valid/accuracy": next(figures)}

    family = small("classify")
    stop = {"metric": "valid/accuracy", "patience": 2}
    outcome = fit(family, tmp_path, watch=watch, evaluate_every=1, early_stop=stop, **EMA)
    assert (outcome.best_step, bits(family)) == (2, kept[1])
    plain = small("classify")
    fit(plain, tmp_path / "plain", watch=lambda model: kept.append(bits(model)) or {}, evaluate_every=2)
    assert kept[4] != kept[1]


def test_a_signal_within_an_evaluation_leaves_the_weights_as_they_were_trained(tmp_path: Path) -> None:
    def watch(_: Small) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    whole = small("classify", dropout=0.2)
    fit(whole, tmp_path / "whole", **EMA)
    with pytest.raises(Stopped):
        fit(small("classify", dropout=0.2), tmp_path / "run", watch=watch, **EMA)
    resumed = small("classify", dropout=0.2)
    fit(resumed, tmp_path / "run", **EMA)
    assert bits(resumed) == bits(whole)


# ------------------------------------------------------------------------------------------------------------ soup


def test_a_soup_of_one_is_the_plain_run_to_the_bit(tmp_path: Path) -> None:
    plain, souped = small("classify"), small("classify")
    fit(plain, tmp_path / "plain")
    fit(souped, tmp_path / "soup", **soup(last=1))
    assert bits(souped) == bits(plain)


def test_a_soup_is_the_mean_of_the_last_evaluations_whatever_checkpoints_are_kept(
    tmp_path: Path, plain: dict[int, dict[str, Tensor]]
) -> None:
    family = small("classify")
    outcome = fit(family, tmp_path, evaluate_every=2, checkpoint_every=100, keep=1, **soup(last=3))
    expected = {name: torch.stack([plain[step][name].double() for step in (4, 6, 8)]).mean(0).float() for name in plain[0]}
    assert equal(family, expected)
    assert outcome.averaged["soup"]["steps"] == [4, 6, 8]
    assert outcome.figures["average/evaluations"] == 3


def test_a_soup_of_the_best_takes_those_and_no_others(tmp_path: Path, plain: dict[int, dict[str, Tensor]]) -> None:
    figures = iter([0.9, 0.2, 0.5, 0.7, 0.1])
    family = small("classify")
    outcome = fit(family, tmp_path, watch=lambda _: {"valid/loss": next(figures)}, evaluate_every=2, keep=1, **soup(best=2))
    expected = {name: torch.stack([plain[step][name].double() for step in (4, 6)]).mean(0).float() for name in plain[0]}
    assert equal(family, expected)
    assert outcome.best_figures["valid/loss"] == 0.1
    assert outcome.averaged["soup"]["alone"] == {"4": 0.2, "6": 0.5}


def test_a_greedy_soup_leaves_out_what_makes_validation_worse(tmp_path: Path, plain: dict[int, dict[str, Tensor]]) -> None:
    looks = [0.4, 0.3, 0.5, 0.2]  # of steps 2, 4, 6, 8: the best first is 8, 4, 2, 6
    tried = [0.2, 0.25, 0.2, 0.15, 0.15]  # 8; with 4 worse; with 2 no worse; with 6 better; the last look
    figures = iter([*looks, *tried])
    family = small("classify")
    outcome = fit(family, tmp_path, watch=lambda _: {"valid/loss": next(figures)}, evaluate_every=2, keep=1, **soup(last=4, greedy=True))
    assert outcome.averaged["soup"]["steps"] == [2, 6, 8]
    expected = {name: torch.stack([plain[step][name].double() for step in (8, 2, 6)]).mean(0).float() for name in plain[0]}
    assert equal(family, expected)


@pytest.mark.parametrize("step", [3, 5, 8])
def test_a_killed_run_ends_with_the_same_soup(tmp_path: Path, step: int) -> None:
    """Also where it was killed at its end, in the middle of choosing."""

    def watch(family: Small) -> dict[str, float]:
        return {"valid/loss": float(family.get_parameter("head.out.weight").detach().abs().sum())}

    options: dict[str, Any] = {"evaluate_every": 2, "keep": 1, **soup(best=2)}
    whole = small("classify", dropout=0.2)
    outcome = fit(whole, tmp_path / "whole", watch=watch, **options)
    if step < 8:
        killed_before(step, small("classify", dropout=0.2), tmp_path / "killed", watch=watch, **options)
    else:
        looks: list[int] = []

        def dying(family: Small) -> dict[str, float]:
            looks.append(1)
            if len(looks) == 5:
                raise Killed
            return watch(family)

        with pytest.raises(Killed):
            fit(small("classify", dropout=0.2), tmp_path / "killed", watch=dying, **options)
    resumed = small("classify", dropout=0.2)
    again = fit(resumed, tmp_path / "killed", watch=watch, **options)
    assert bits(resumed) == bits(whole)
    assert again.averaged == outcome.averaged


def test_a_checkpoint_of_the_soup_that_is_lost_is_told_and_left_out(tmp_path: Path) -> None:
    def watch(family: Small) -> dict[str, float]:
        if len(list((tmp_path / "checkpoints").glob("step-*"))) == 3:
            (tmp_path / "checkpoints" / "step-000004" / "tensors.safetensors").write_bytes(b"torn")
        return {}

    outcome = fit(small("classify"), tmp_path, watch=watch, evaluate_every=2, **soup(last=4))
    assert outcome.averaged["soup"]["steps"] == [2, 6, 8]
    assert {finding.code for finding in outcome.findings if finding.severity == Severity.ERROR} == {"soup-lost"}


def test_what_validation_chose_is_told_once_in_the_events(tmp_path: Path) -> None:
    for _ in range(2):
        fit(small("classify"), tmp_path, watch=lambda _: {"valid/loss": 1.0}, evaluate_every=2, **soup(best=2))
    told = [event for event in events.read(tmp_path / "events.jsonl") if event["name"].startswith("average/")]
    assert {event["name"]: event["value"] for event in told} == {"average/evaluations": 2.0, "average/valid/loss": 1.0}
    assert len(told) == 2


# ----------------------------------------------------------------------------------------------------- interpolation


def test_the_share_one_is_the_plain_run_and_zero_the_pretrained_towers_to_the_bit(tmp_path: Path) -> None:
    start, plain, tuned, untuned = (small("classify") for _ in range(4))
    before = weights(start)
    fit(plain, tmp_path / "plain")
    fit(tuned, tmp_path / "one", **back(1.0))
    fit(untuned, tmp_path / "zero", **back(0.0))
    assert bits(tuned) == bits(plain)
    after, trained = weights(untuned), weights(plain)
    for name, tensor in after.items():
        assert torch.equal(tensor, (before if name.startswith("tower.") else trained)[name]), name


def test_half_way_is_half_way_for_what_was_read_and_the_end_for_what_was_made_new(tmp_path: Path) -> None:
    plain, half = small("classify"), small("classify")
    before = weights(plain)
    fit(plain, tmp_path / "plain")
    outcome = fit(half, tmp_path / "half", **back(0.5))
    trained = weights(plain)
    for name, tensor in weights(half).items():
        wanted = (before[name] + trained[name]) / 2 if name.startswith("tower.") else trained[name]
        assert torch.allclose(tensor, wanted, atol=1e-7, rtol=0), name
    assert outcome.figures["average/tuned"] == 0.5


@pytest.mark.parametrize(("tried", "share"), [((0.3, 0.2, 0.4), 0.5), ((0.2, 0.2, 0.2), 1.0)])
def test_validation_picks_the_share_and_of_equals_the_most_tuned(tmp_path: Path, tried: tuple[float, ...], share: float) -> None:
    half, family = small("classify"), small("classify")
    fit(half, tmp_path / "half", **back(0.5))
    figures = iter([9.0, 9.0, *tried, 0.2])
    outcome = fit(family, tmp_path / "chosen", watch=lambda _: {"valid/loss": next(figures)}, **back(0.0, 0.5, 1.0))
    assert outcome.averaged["interpolate"]["tuned"] == share
    assert (bits(family) == bits(half)) == (share == 0.5)
    assert outcome.best_figures["valid/loss"] == 0.2


def test_of_lora_the_insert_is_scaled_which_is_half_way_in_the_weights(tmp_path: Path) -> None:
    table = (TuningRow(pattern="words.encoder", insert=Component(name="lora", options={"rank": 2})), TuningRow(pattern="head"))
    runs: dict[str, Small] = {}
    cases: dict[str, dict[str, Any]] = {"plain": {}, "half": back(0.5), "none": back(0.0)}
    for name, options in cases.items():
        runs[name] = small("classify")
        fit(runs[name], tmp_path / name, table=table, **options)
    plain, half, none = (weights(runs[name]) for name in ("plain", "half", "none"))
    ends = [name for name in plain if "lora_B" in name]
    assert ends
    for name, tensor in half.items():
        assert torch.equal(tensor, plain[name] / 2 if name in ends else plain[name]), name
    assert all(not bool(none[name].any()) for name in ends)


def test_a_running_average_a_way_back_and_a_kill_go_together(tmp_path: Path) -> None:
    options: dict[str, Any] = {**EMA, **back(0.3)}
    whole = small("classify", dropout=0.2)
    fit(whole, tmp_path / "whole", **options)
    killed_before(5, small("classify", dropout=0.2), tmp_path / "killed", **options)
    resumed = small("classify", dropout=0.2)
    fit(resumed, tmp_path / "killed", **options)
    assert bits(resumed) == bits(whole)


def test_a_checkpoint_without_averages_is_refused_by_a_run_that_has_them(tmp_path: Path) -> None:
    fit(small("classify"), tmp_path)
    with pytest.raises(StateError, match="the plan is another"):
        fit(small("classify"), tmp_path, **EMA)


# ------------------------------------------------------------------------------------------------------------- parts


def test_both_ends_of_a_line_are_exact() -> None:
    start, end = {"x": torch.randn(64) * 1e-3}, {"x": torch.randn(64) * 1e3, "new": torch.ones(2)}
    assert torch.equal(between(start, end, 1.0)["x"], end["x"])
    assert torch.equal(between(start, end, 0.0)["x"], start["x"])
    assert torch.equal(between(start, end, 0.0)["new"], end["new"])


def test_the_mean_of_equal_weights_is_the_weights() -> None:
    one = {"x": torch.randn(100)}
    assert torch.equal(mean([one, one, one])["x"], one["x"])


def test_figures_are_ranked_as_early_stopping_judges_them() -> None:
    values = [0.5, float("nan"), 0.9, 0.5]
    assert Choice("valid/accuracy").ranked(values) == [2, 0, 3, 1]
    assert Choice("valid/loss").ranked(values) == [0, 3, 2, 1]
    assert Choice("valid/loss", "max").ranked(values) == [2, 0, 3, 1]


def test_a_soup_of_the_best_of_fewer_evaluations_takes_them_all() -> None:
    made = Soup(last=0, best=3, greedy=False, choice=Choice("valid/loss"))
    assert made.wanted([(2, 0.5), (4, 0.4)]) == [4, 2]


def test_a_figure_that_is_not_measured_is_named() -> None:
    with pytest.raises(RecipeError, match=r"average\.metric: .*Did you mean"):
        Choice("valid/acuracy").figure({"valid/accuracy": 1.0})
