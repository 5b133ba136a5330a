"""What moves is what the tuning table says, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from multitune.core.errors import ModelError, PluginError
from multitune.core.recipe import Component, TuningRow
from multitune.models import anatomy
from multitune.tuning.strategies import full, lora, partial
from tests.tuning.fitting import bits, fit
from tests.tuning.small import rows, scope_of, small

LORA = Component(name="lora", options={"rank": 2})


def changed(family: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in family.state_dict().items() if name not in before or not torch.equal(before[name], tensor)}


def copied(family: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in family.state_dict().items()}


def test_later_rows_win_and_what_no_row_means_is_frozen() -> None:
    frozen = TuningRow(pattern="words.embeddings", rate=0)
    table = (TuningRow(pattern="words.*", rate=0.1), TuningRow(pattern="words.encoder.layer.1", rate=0.5), frozen)
    scope = scope_of(small("classify"), table)
    rates = {entry.name: span.rate for entry in scope.entries for span in entry.spans}
    assert rates["words.encoder.layer.0.output.dense.weight"] == 0.1
    assert rates["words.encoder.layer.1.output.dense.weight"] == 0.5
    assert not any(name.startswith(("words.embeddings", "head", "scale")) for name in rates)


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match='Did you mean "words"'):
        scope_of(small("classify"), (TuningRow(pattern="wrods"),))


def test_start_and_stop_are_steps_or_shares_of_the_run() -> None:
    table = (TuningRow(pattern="head", start="50%"), TuningRow(pattern="scale", start=2, stop=3))
    scope = scope_of(small("classify"), table, steps=8)
    moving = [{name.split(".")[0] for name in scope.moving_names(step)} for step in range(8)]
    assert moving == [set(), set(), {"scale"}, set(), {"head"}, {"head"}, {"head"}, {"head"}]


def test_only_what_moves_takes_gradients_and_only_modules_that_move_train() -> None:
    family = small("classify", dropout=0.1)
    scope_of(family, (TuningRow(pattern="words.encoder.layer.1"), TuningRow(pattern="head")))
    assert {name.split(".")[-1] for name, module in family.tower["words"].encoder.layer.named_children() if module.training} == {"1"}
    assert not family.tower["words"].embeddings.dropout.training
    assert family.head["drop"].training
    assert {name for name, p in family.named_parameters() if p.requires_grad and ".layer.0." in name} == set()


def test_back_from_an_evaluation_modes_are_what_they_were_and_another_phase_has_its_own() -> None:
    family = small("classify", dropout=0.1)
    scope = scope_of(family, (TuningRow(pattern="words.encoder.layer.1", start=2), TuningRow(pattern="head")), steps=4)

    def training(step: int) -> list[bool]:
        scope.enter(step)
        return [module.training for module in family.modules()]

    early, late = training(0), training(2)
    assert early != late
    for left, step, wanted in ((0, 0, early), (0, 2, late), (2, 2, late)):
        scope.enter(left)
        scope.leave()
        assert not any(module.training for module in family.modules())
        assert training(step) == wanted
    scope.enter(0)
    scope.leave()
    assert (training(2), training(0)) == (late, early)


def test_batch_norm_keeps_its_statistics_unless_they_are_to_move(tmp_path: Path) -> None:
    still, moving = small("classify"), small("classify")
    before = still.head["norm"].running_mean.clone()
    fit(still, tmp_path / "still")
    outcome = fit(moving, tmp_path / "moving", scope_options={"batch_norm": "moving"})
    assert torch.equal(still.head["norm"].running_mean, before)
    assert not torch.equal(moving.head["norm"].running_mean, before)
    assert "moved-unplanned" not in {finding.code for finding in outcome.findings}


def test_what_is_frozen_keeps_every_bit(tmp_path: Path) -> None:
    family = small("classify", dropout=0.1)
    before = copied(family)
    outcome = fit(family, tmp_path, table=(TuningRow(pattern="head"),))
    assert changed(family, before) == {"head.norm.weight", "head.norm.bias", "head.out.weight", "head.out.bias"}
    assert outcome.findings == ()


def test_a_tensor_that_no_gradient_reaches_is_left_out_and_said() -> None:
    scope = scope_of(small("classify"), unused=("scale",))
    assert "scale" not in {entry.name for entry in scope.entries}
    assert scope.left_out == ("scale",)


def test_a_tensor_that_was_to_move_and_did_not_is_found(tmp_path: Path) -> None:
    outcome = fit(small("classify"), tmp_path)
    assert [(finding.code, finding.evidence["tensors"]) for finding in outcome.findings] == [("did-not-move", ["scale"])]


def test_a_tensor_that_moved_against_the_plan_is_an_error() -> None:
    family = small("classify")
    scope = scope_of(family, (TuningRow(pattern="head"),))
    before = scope.hashes()
    family.scale.data += 1
    (still, stray) = scope.compare(before, scope.hashes(), steps=8)
    assert (still.code, stray.code, str(stray.severity)) == ("did-not-move", "moved-unplanned", "error")


def test_lora_moves_adapters_alone(tmp_path: Path) -> None:
    family = small("classify")
    fit(family, tmp_path, table=(TuningRow(pattern="words", insert=LORA),))
    frozen = small("classify").state_dict()
    left = {name.replace(".base_layer", ""): tensor for name, tensor in family.state_dict().items() if ".lora_" not in name}
    assert all(torch.equal(tensor, left[name]) for name, tensor in frozen.items())


def test_adapters_begin_as_nothing_and_by_the_seed_alone() -> None:
    family, other = small("classify"), small("classify")
    batch = rows(family, 4)
    plain = family.eval()(batch).logits["kind"]
    torch.manual_seed(1)
    scope_of(family, (TuningRow(pattern="words", insert=LORA),))
    torch.manual_seed(2)
    scope_of(other, (TuningRow(pattern="words", insert=LORA),))
    assert bits(family) == bits(other)
    assert torch.equal(family.eval()(batch).logits["kind"], plain)


def test_adapters_go_where_the_pattern_says() -> None:
    scope = scope_of(small("classify"), (TuningRow(pattern="words.encoder.layer.1.attention", insert=LORA),))
    assert {name.partition(".lora_")[0] for name in scope.moving_names(0)} == {
        f"words.encoder.layer.1.attention.{layer}" for layer in ("self.query", "self.key", "self.value", "output.dense")
    }


def test_two_rows_that_insert_into_one_tower_are_refused() -> None:
    with pytest.raises(ModelError, match="two rows"):
        scope_of(small("classify"), (TuningRow(pattern="words", insert=LORA), TuningRow(pattern="words", insert=LORA)))


def test_something_unknown_to_insert_is_refused() -> None:
    with pytest.raises(PluginError, match='Did you mean "lora"'):
        scope_of(small("classify"), (TuningRow(pattern="words", insert=Component(name="lroa")),))


def test_full_moves_everything() -> None:
    family = small("classify")
    table = full.build(full.Options(head_rate=5, towers={"words": 0.5})).rows(anatomy.find(family))
    scope = scope_of(family, tuple(table))
    assert {(entry.tower, span.rate) for entry in scope.entries for span in entry.spans} == {("words", 0.5), ("", 5)}
    assert scope.parameters_moved == sum(parameter.numel() for parameter in family.parameters())


def test_partial_freezes_the_towers_but_for_their_last_blocks() -> None:
    family = small("classify")
    for blocks, expected in ((0, set()), (1, {"1"}), (2, {"0", "1"})):
        table = partial.build(partial.Options(blocks=blocks)).rows(anatomy.find(family))
        names = scope_of(family, tuple(table)).moving_names(0)
        assert {name.split(".")[3] for name in names if name.startswith("words.")} == expected
        assert {name.split(".")[0] for name in names} >= {"head", "scale"}


def test_partial_refuses_more_blocks_than_there_are() -> None:
    with pytest.raises(ModelError, match="2 blocks, not 3"):
        partial.build(partial.Options(blocks=3)).rows(anatomy.find(small("classify")))


@pytest.mark.parametrize("strategy", [full.build(full.Options(towers={"wrods": 1})), lora.build(lora.Options(towers=("wrods",)))])
def test_a_strategy_refuses_a_tower_that_is_not_there(strategy: full.Full | lora.Lora) -> None:
    with pytest.raises(ModelError, match='Did you mean "words"'):
        strategy.rows(anatomy.find(small("classify")))


def test_lora_moves_adapters_and_what_joins_the_towers() -> None:
    family = small("embed")
    table = lora.build(lora.Options(rank=2, towers=("left",))).rows(anatomy.find(family))
    scope = scope_of(family, tuple(table))
    assert list(scope.adapters) == ["left"]
    assert {(entry.tower, entry.inserted) for entry in scope.entries} == {("left", True), ("", False)}
