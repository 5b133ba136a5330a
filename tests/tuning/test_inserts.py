"""What rows insert begins as nothing, goes where it is meant to go, and is counted as the plan counts it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.plan import Plan
from multitune.core.recipe import Component, TuningRow
from multitune.models import anatomy
from multitune.models.tokens import base_names
from multitune.tuning.plan import planned_table
from tests.tuning.fitting import bits, fit
from tests.tuning.small import rows, scope_of, small
from tests.tuning.test_plan import outline

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora", "rank": 2},
    "dora": {"name": "lora", "rank": 2, "dora": True},
    "rslora": {"name": "lora", "rank": 2, "rslora": True},
    "chosen": {"name": "lora", "rank": 2, "layers": ["query", "*.value"]},
    "bottleneck": {"name": "bottleneck", "size": 3},
}


def table_of(kind: str, **more: Any) -> tuple[TuningRow, ...]:
    return (TuningRow(pattern="words", insert=Component.model_validate(KINDS[kind]), **more), TuningRow(pattern="head"))


def test_every_kind_of_insert_is_tried_here() -> None:
    assert {kind["name"] for kind in KINDS.values()} == set(catalog.names("insert"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_nothing_and_by_the_seed_alone(kind: str) -> None:
    family, other = small("classify"), small("classify")
    batch = rows(family, 4)
    plain = family.eval()(batch).logits["kind"]
    torch.manual_seed(1)
    scope_of(family, table_of(kind))
    torch.manual_seed(2)
    scope_of(other, table_of(kind))
    assert bits(family) == bits(other)
    assert torch.equal(family.eval()(batch).logits["kind"], plain)


@pytest.mark.parametrize("kind", KINDS)
def test_it_moves_alone_and_changes_what_the_model_says(tmp_path: Path, kind: str) -> None:
    family, plain = small("classify"), small("classify")
    batch = rows(family, 4)
    before = plain.eval()(batch).logits["kind"]
    outcome = fit(family, tmp_path, table=table_of(kind)[:1])
    names = base_names(family)
    state = {names[name]: tensor for name, tensor in family.state_dict().items() if name in names}
    assert all(torch.equal(tensor, state[name]) for name, tensor in plain.state_dict().items())
    assert not torch.equal(family.eval()(batch).logits["kind"], before)
    assert outcome.findings == ()


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_counts_the_numbers_that_come_in(kind: str) -> None:
    values = outline(strategy=[row.model_dump(exclude_defaults=True) for row in table_of(kind)]).values
    planned = tuple(planned_table(Plan("x", {}, values)))
    assert values["moves.parameters"].value == scope_of(small("classify"), planned).parameters_moved


def test_a_bottleneck_stands_after_the_last_linear_layer_of_each_block() -> None:
    scope = scope_of(small("classify"), table_of("bottleneck"))
    assert {entry.name.partition(".inserted.")[0] for entry in scope.entries if entry.inserted} == {
        "words.encoder.layer.0.output.dense",
        "words.encoder.layer.1.output.dense",
    }


def test_a_bottleneck_goes_only_into_the_blocks_that_are_meant() -> None:
    row = TuningRow(pattern="words.encoder.layer.1", insert=Component(name="bottleneck"))
    assert all(".layer.1." in entry.name for entry in scope_of(small("classify"), (row,)).entries)


def test_chosen_layers_alone_get_adapters() -> None:
    scope = scope_of(small("classify"), table_of("chosen"))
    assert {entry.name.split(".")[-4] for entry in scope.entries if entry.inserted} == {"query", "value"}


@pytest.mark.parametrize("layers", [["qeury"], ["query", "qeury"]])
def test_layers_that_name_nothing_are_told_with_those_that_there_are(layers: list[str]) -> None:
    row = TuningRow(pattern="words", insert=Component.model_validate(KINDS["chosen"] | {"layers": layers}))
    with pytest.raises(ModelError, match=r'strategy\.0\.insert\.layers: "qeury" names no layer.*there are .*query.*Did you mean "query"'):
        scope_of(small("classify"), (row,))


def test_a_copy_of_a_tower_has_bottlenecks_of_its_own() -> None:
    family = small("classify")
    scope_of(family, table_of("bottleneck"))
    batch = rows(family, 4)
    copied = copy.deepcopy(family).eval()
    before = copied(batch).logits["kind"]
    with torch.no_grad():
        for name, parameter in family.named_parameters():
            if "inserted" in name:
                parameter.add_(1.0)
    assert torch.equal(copied(batch).logits["kind"], before)


def test_names_of_the_model_stay_what_they_were() -> None:
    family = small("classify")
    before = anatomy.find(family).parameters
    scope_of(family, table_of("bottleneck"))
    assert [name for name in anatomy.find(family).parameters if "inserted" not in name] == before


def test_a_pattern_without_a_place_is_refused() -> None:
    with pytest.raises(ModelError, match="no place for bottleneck"):
        scope_of(small("classify"), (TuningRow(pattern="words.embeddings", insert=Component(name="bottleneck")),))


def test_a_rank_for_a_tower_without_adapters_is_refused() -> None:
    lora = catalog.find("strategy", "lora", {"towers": ["left"], "ranks": {"right": 4}}).build()
    with pytest.raises(ModelError, match="right is frozen"):
        lora.rows(anatomy.find(small("embed")))


def test_towers_may_have_ranks_of_their_own() -> None:
    lora = catalog.find("strategy", "lora", {"rank": 2, "ranks": {"right": 4}}).build()
    asked = {row.pattern: row.insert.options["rank"] for row in lora.rows(anatomy.find(small("embed"))) if row.insert}
    assert asked == {"left": 2, "right": 4}
