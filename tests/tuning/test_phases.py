"""Phases and the strategies that have them: in each exactly the planned tensors change, and what hinders it is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multitune.core import catalog
from multitune.core.errors import RecipeError
from multitune.core.plan import Plan
from multitune.core.recipe import TuningRow
from multitune.models import anatomy
from multitune.tuning import events, optimizer
from multitune.tuning.plan import planned_table
from multitune.tuning.rules import Span, spans
from multitune.tuning.schedule import Schedule
from tests.tuning.fitting import DyingSteps, Killed, bits, fit
from tests.tuning.small import Small, scope_of, small
from tests.tuning.test_plan import outline

UNUSED = {"unused": ("scale",)}
PHASES = [{"name": "partial", "stop": 2}, {"name": "lora", "rank": 2, "stop": "60%"}, {"name": "full", "towers": {"words": 0.1}}]
STRATEGIES: dict[str, tuple[Any, dict[int, set[str]]]] = {
    # strategy, and from which step on which of these begin (or cease) to move
    "phases": (PHASES, {0: {"head"}, 2: {"head", "inserted"}, 5: {"head", "embeddings", "0", "1"}}),
    "lp_ft": ({"name": "lp_ft", "probe": "25%", "probe_rate": 3}, {0: {"head"}, 2: {"head", "embeddings", "0", "1"}}),
    "progressive": (
        {"name": "progressive"},
        {0: {"head"}, 2: {"head", "1"}, 4: {"head", "0", "1"}, 6: {"head", "0", "1", "embeddings"}},
    ),
    "progressive-stated": (
        {"name": "progressive", "starts": [3, 5], "depth": 2},
        {0: {"head"}, 3: {"head", "1"}, 5: {"head", "0", "1"}},
    ),
    "per_modality": (
        {"name": "per_modality", "towers": {"words": {"rate": 0.5, "start": 3, "stop": "75%", "blocks": 1}}},
        {0: {"head"}, 3: {"head", "1"}, 6: {"head"}},
    ),
}


class Watched(DyingSteps):
    """Steps that keep the tensors of the model as they are before each step."""

    last = -1

    def __init__(self, family: Small) -> None:
        super().__init__(family)
        self.seen: list[dict[str, Tensor]] = []

    def steps(self, start: int, stop: int) -> Any:
        """Steps, the tensors kept between them."""
        for batch in super().steps(start, stop):
            self.look()
            yield batch

    def look(self) -> None:
        """Keep the tensors as they are now."""
        self.seen.append({name: tensor.detach().clone() for name, tensor in self.family.named_parameters()})


def table_of(strategy: Any, *, steps: int = 8) -> tuple[TuningRow, ...]:
    return tuple(planned_table(Plan("x", {}, outline(strategy=strategy, steps=steps, rows=32, batch_size=8).values)))


def where(path: str) -> str:
    """What of the small model a tensor belongs to: head, embeddings, the number of a block, or what was inserted."""
    if ".lora_" in path:
        return "inserted"
    return next((step for step in path.split(".") if step in {"head", "embeddings", "0", "1"}), path)


@pytest.mark.parametrize("name", STRATEGIES)
def test_in_each_phase_exactly_the_planned_tensors_change(tmp_path: Path, name: str) -> None:
    strategy, expected = STRATEGIES[name]
    family = small("classify")
    watched = Watched(family)
    outcome = fit(family, tmp_path, table=table_of(strategy), loader=watched, scope_options=UNUSED, evaluate_every=8)
    watched.look()
    moving: set[str] = set()
    for step in range(8):
        moving = expected.get(step, moving)
        before, after = watched.seen[step], watched.seen[step + 1]
        changed = {path for path in after if not torch.equal(before[path], after[path])}
        assert {where(path) for path in changed} == moving, step
        assert {path for path in after if where(path) in moving} - {"scale"} - changed <= set(without_gradient(after, step)), step
    assert outcome.findings == ()


def without_gradient(tensors: dict[str, Tensor], step: int) -> list[str]:
    """The first factor of an adapter: its gradient is nothing while the second is nothing."""
    return [path for path in tensors if ".lora_A" in path and step == 2]


@pytest.mark.parametrize("name", ["phases", "progressive"])
@pytest.mark.parametrize("step", [2, 5, 6])
def test_a_run_killed_at_or_after_a_border_goes_on_to_the_same_bits(tmp_path: Path, name: str, step: int) -> None:
    table = table_of(STRATEGIES[name][0])
    whole = small("classify", dropout=0.2)
    fit(whole, tmp_path / "whole", table=table, scope_options=UNUSED)
    killed = small("classify", dropout=0.2)
    loader = DyingSteps(killed)
    loader.last = step
    with pytest.raises(Killed):
        fit(killed, tmp_path / "run", table=table, loader=loader, scope_options=UNUSED)
    resumed = small("classify", dropout=0.2)
    fit(resumed, tmp_path / "run", table=table, scope_options=UNUSED)
    assert bits(resumed) == bits(whole)


WAITS = {"metric": "valid/accuracy", "patience": 1, "mode": "auto", "min_delta": 0.0}


def paced(
    family: Small, folder: Path, *, loader: Any = None, figures: Any = (0.5, 0.5, 0.6, 0.6, 0.7, 0.7, 0.7, 0.7), patience: int = 1
) -> Any:
    """Progressive in eight steps, evaluated after each: figures[n - 1] is what is measured after step n."""
    told = iter(figures[len(checkpoints(folder)) :])
    table = table_of({"name": "progressive", "starts": [4, 6, 7]})
    options = {"evaluate_every": 1, "checkpoint_every": 1, "plateau": WAITS | {"patience": patience}, "scope_options": UNUSED}
    return fit(family, folder, table=table, loader=loader, watch=lambda _: {"valid/accuracy": next(told)}, keep=8, **options)


def checkpoints(folder: Path) -> list[Path]:
    """What was kept so far."""
    return sorted((folder / "checkpoints").glob("step-??????"))


def test_a_phase_starts_when_the_figure_no_longer_rises_and_at_the_latest_as_planned(tmp_path: Path) -> None:
    """After step 2 nothing is better: the last block moves from step 2 on; after step 4 the first; the embeddings as planned."""
    family = small("classify")
    watched = Watched(family)
    outcome = paced(family, tmp_path, loader=watched, figures=(0.5, 0.5, 0.6, 0.6, 0.7, 0.8, 0.9, 0.9))
    watched.look()
    seen: list[set[str]] = []
    for before, after in pairwise(watched.seen):
        seen.append({where(path) for path in after if not torch.equal(before[path], after[path])})
    head, block, blocks = {"head"}, {"head", "1"}, {"head", "0", "1"}
    assert seen == [head, head, block, block, blocks, blocks, blocks, blocks | {"embeddings"}]
    assert outcome.findings == ()
    assert brought_forward(tmp_path) == [(2, 4), (4, 6)]


def brought_forward(folder: Path) -> list[tuple[int, float]]:
    """After which step which planned start was brought forward."""
    found = events.read(folder / "events.jsonl")
    return [(event["step"], event["value"]) for event in found if event["name"].endswith("brought_forward")]


def test_a_plateau_just_where_a_phase_starts_as_planned_does_not_skip_that_phase(tmp_path: Path) -> None:
    """Nothing is better after step 4, where the last block is planned to start; the blocks after it wait for their own time."""
    paced(small("classify"), tmp_path, figures=(0.5, 0.6, 0.7, 0.7, 0.8, 0.9, 1.0, 1.0))
    assert brought_forward(tmp_path) == []


@pytest.mark.parametrize("figures", [(0.5, 0.6, 0.7, 0.6, 0.6, 0.7), (0.5, 0.6, 0.9, 0.95, 0.6, 0.7)])
def test_each_phase_is_judged_by_its_own_evaluations(tmp_path: Path, figures: tuple[float, ...]) -> None:
    """A phase that starts as planned has its whole patience, and need not beat what the one before it reached."""
    paced(small("classify"), tmp_path, figures=(*figures, 0.8, 0.9), patience=2)
    assert brought_forward(tmp_path) == []


def test_a_phase_that_was_brought_forward_has_a_warmup_of_its_own(tmp_path: Path) -> None:
    scope = scope_of(small("classify"), (TuningRow(pattern="head"), TuningRow(pattern="words", start=6)))
    adam = optimizer.build(scope, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0)
    scope.clock.early[scope.next_start(2)] = 2
    schedule = Schedule("constant", total=8, warmup=4, decay=0)
    rates: list[set[float]] = []
    for step in range(8):
        optimizer.set_rates(adam, schedule, lr=1.0, step=step, clock=scope.clock)
        rates.append({group["lr"] for group in adam.param_groups if len(group["params"]) > 4})
    assert rates == [{0.0}, {0.0}, {0.25}, {0.5}, {0.75}, {1.0}, {1.0}, {1.0}]


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_run_killed_after_a_phase_was_brought_forward_goes_on_to_the_same_bits(tmp_path: Path, step: int) -> None:
    whole = small("classify", dropout=0.2)
    paced(whole, tmp_path / "whole")
    killed = small("classify", dropout=0.2)
    loader = DyingSteps(killed)
    loader.last = step
    with pytest.raises(Killed):
        paced(killed, tmp_path / "run", loader=loader)
    resumed = small("classify", dropout=0.2)
    paced(resumed, tmp_path / "run")
    assert bits(resumed) == bits(whole)


def test_a_plateau_without_a_phase_to_bring_forward_is_refused() -> None:
    with pytest.raises(RecipeError, match="no phase to bring forward"):
        outline(strategy="full", plateau={"metric": "valid/accuracy"})


def test_rows_of_other_steps_stand_side_by_side_and_rows_of_the_same_take_each_others_place() -> None:
    table = (
        TuningRow(pattern="words", rate=0.5),
        TuningRow(pattern="words.encoder.layer.0", start=4),
        TuningRow(pattern="head", rate=3, stop=4),
        TuningRow(pattern="head", start=4),
    )
    when = {entry.name: entry.spans for entry in scope_of(small("classify"), table).entries}
    assert when["head.out.weight"] == (Span(0, 4, 3, 0), Span(4, 8, 1, 0))
    assert when["words.encoder.layer.0.output.dense.weight"] == (Span(4, 8, 1, 4),)
    assert when["words.encoder.layer.1.output.dense.weight"] == (Span(0, 8, 0.5, 0),)


def test_a_rate_that_goes_on_is_one_span_and_a_pause_begins_a_stretch() -> None:
    rows = [TuningRow(pattern="x", stop=2), TuningRow(pattern="x", start=2, stop=4), TuningRow(pattern="x", start=6)]
    assert spans(rows, total=8) == (Span(0, 4, 1, 0), Span(6, 8, 1, 6))


def test_a_tensor_that_goes_on_keeps_its_state_and_one_that_paused_starts_anew() -> None:
    table = (
        TuningRow(pattern="head", rate=2, stop=3),
        TuningRow(pattern="head", start=3),
        TuningRow(pattern="scale", stop=2),
        TuningRow(pattern="scale", start=3),
    )
    scope = scope_of(small("classify"), table)
    adam = optimizer.build(scope, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0)
    schedule = Schedule("constant", total=8, warmup=2, decay=0)
    rates: list[tuple[float, float]] = []
    for step in range(4):
        scope.enter(step)
        optimizer.set_rates(adam, schedule, lr=1.0, step=step, clock=scope.clock)
        for moving in scope.moving(step):
            moving.parameter.grad = torch.ones_like(moving.parameter)
        adam.step()
        adam.zero_grad()
        rates.append(tuple(next(g["lr"] for g in adam.param_groups if id(p) in map(id, g["params"])) for p in tensors(scope)))
    assert rates == [(1.0, 0.5), (2.0, 1.0), (2.0, 0.0), (1.0, 0.5)]
    assert [int(adam.state[p]["step"]) for p in tensors(scope)] == [4, 1]


def tensors(scope: Any) -> tuple[Any, Any]:
    named = {entry.name: entry.parameter for entry in scope.entries}
    return named["head.out.weight"], named["scale"]


def test_what_two_phases_insert_alike_is_inserted_once_and_goes_on() -> None:
    lora = {"name": "lora", "rank": 2}
    table = table_of([{**lora, "stop": 4}, {**lora, "rate": 0.5}])
    found = {entry.name: entry.spans for entry in scope_of(small("classify"), table).entries if entry.inserted}
    assert set(found.values()) == {(Span(0, 4, 1, 0), Span(4, 8, 0.5, 0))}


def test_a_pattern_does_not_mean_what_another_row_inserts() -> None:
    table = table_of([{"name": "lora", "rank": 2, "stop": 4}, "full"])
    assert {entry.spans for entry in scope_of(small("classify"), table).entries if entry.inserted} == {(Span(0, 4, 1, 0),)}


def test_steps_of_a_phase_are_counted_from_its_start() -> None:
    table = table_of([{"name": "partial", "stop": 4}, {"name": "lp_ft", "probe": "50%"}])
    assert {row.start for row in table if row.pattern == "words"} == {6}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            [{"name": "partial", "stop": 4}, {"name": "full", "start": 2}],
            r"strategy\.1\.start: .*starts at step 2.*stops at step 4: they overlap",
        ),
        ([{"name": "partial", "stop": 2}, {"name": "full", "start": 4}], r"steps 2 to 4 belong to no phase"),
        ([{"name": "partial", "stop": "50%"}, {"name": "full", "stop": 6}], r"strategy\.1\.stop: steps 6 to 8 belong to no phase"),
        ([{"name": "partial", "stop": "1%"}, "full"], r"strategy\.0: the phase partial has no steps"),
        ([{"name": "full", "stop": 8}, "partial"], r"strategy\.1: the phase partial has no steps"),
        ([{"name": "partial", "head_rate": 0, "stop": 4}, "full"], r"strategy\.0: the phase partial \(steps 0 to 4\) moves nothing"),
        (
            ["full", {"name": "per_modality", "start": 4, "towers": {"words": {"start": 2}}, "head_rate": 0}],
            r"moves nothing in steps 4 to 6",
        ),
        ([{"pattern": "head", "start": 2}], r"in steps 0 to 2 nothing moves"),
        ({"name": "partial", "layer_decay": 0.5}, r"strategy\.layer_decay: 0\.5 is a rate for towers, and nothing of them moves"),
        ({"name": "partial", "rate": 0.5}, r"strategy\.rate: 0\.5 is a rate for towers, and nothing of them moves"),
        ({"name": "per_modality", "towers": {"words": {"rate": 0}}}, r"strategy\.towers\.words\.rate: found 0"),
        ({"name": "per_modality", "towers": {"wrods": {}}}, 'Did you mean "words"'),
        ({"name": "per_modality", "towers": {"words": {"blocks": 3}}}, "2 blocks, not 3"),
        (
            {"name": "per_modality", "towers": {"words": {"blocks": 0}}},
            r"strategy\.towers\.words\.blocks: found 0.*to freeze a tower, leave it out",
        ),
        ({"name": "per_modality", "towers": {}}, r"strategy\.towers: found {}\. Give at least one"),
        ({"name": "full", "towers": {"wrods": 0.5}}, r"strategy\.towers: .wrods. matches no tower"),
        ({"name": "lp_ft", "towers": {"words": 0}}, "every tower is frozen"),
        ({"name": "lp_ft", "probe": 0}, "no steps"),
        ({"name": "lp_ft", "probe": 8}, "never"),
        ({"name": "progressive", "starts": [2]}, "1 starts are given, and after the head's there are 3 stages"),
        ({"name": "progressive", "towers": ["wrods"]}, 'Did you mean "words"'),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(strategy: Any, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        table_of(strategy)
    assert type(caught.value).__name__ in {"ModelError", "PluginError"}


def test_the_phases_are_drawn_as_a_table() -> None:
    rows = outline(strategy=PHASES, steps=8, rows=32, batch_size=8, lr=1e-2).tables["strategy"]
    words = sum(size for name, size in anatomy.find(small("classify")).sizes.items() if name.startswith("words."))
    assert [row[:3] for row in rows[1:] if row[0]] == [
        ("1 partial", "0 to 2", "scale"),
        ("2 lora", "2 to 5", "words"),
        ("3 full", "5 to 8", "words"),
    ]
    assert ("3 full", "5 to 8", "words", f"{words:,}", "0", "0.001") in rows
    assert next(row for row in rows if row[0] == "2 lora")[2:] == ("words", "896", "896", "0.01")


def test_a_run_of_one_phase_has_no_table_of_phases() -> None:
    assert "strategy" not in outline(strategy="full").tables


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"name": "full", "layer_decay": 0.5}, {"1": 0.5, "0": 0.25, "embeddings": 0.125, "head": 1, "scale": 1}),
        ({"name": "full", "layer_decay": 0.5, "towers": {"words": 2}}, {"1": 1, "0": 0.5, "embeddings": 0.25, "head": 1, "scale": 1}),
        ({"name": "partial", "layer_decay": 0.5, "blocks": 2, "rate": 2}, {"1": 1, "0": 0.5, "head": 1, "scale": 1}),
        ({"name": "lp_ft", "layer_decay": 0.5, "probe": 1}, {"1": 0.5, "0": 0.25, "embeddings": 0.125, "head": 1, "scale": 1}),
        ({"name": "progressive", "layer_decay": 0.5}, {"1": 0.5, "0": 0.25, "embeddings": 0.125, "head": 1, "scale": 1}),
        (
            {"name": "per_modality", "towers": {"words": {"layer_decay": 0.5}}},
            {"1": 0.5, "0": 0.25, "embeddings": 0.125, "head": 1, "scale": 1},
        ),
    ],
)
def test_layer_decay_lowers_the_rate_once_for_each_block_further_down(strategy: Any, expected: dict[str, float]) -> None:
    scope = scope_of(small("classify"), table_of(strategy))
    assert {where(entry.name): entry.spans[0].rate for entry in scope.entries} == expected


@pytest.mark.parametrize("name", ["bitfit", "norm"])
def test_only_biases_or_only_normalisation_layers_move_beside_the_head(tmp_path: Path, name: str) -> None:
    family = small("classify")
    watched = Watched(family)
    outcome = fit(family, tmp_path, table=table_of(name), loader=watched, scope_options=UNUSED)
    watched.look()
    changed = {path for path, tensor in watched.seen[-1].items() if not torch.equal(watched.seen[0][path], tensor)}
    wanted = {"bitfit": lambda path: path.endswith(".bias"), "norm": lambda path: ".LayerNorm." in path}[name]
    assert changed == {path for path in watched.seen[0] if path.startswith("head.") or wanted(path)}
    assert outcome.findings == ()


def test_biases_and_norms_are_named_by_few_patterns() -> None:
    found = anatomy.find(small("classify"))
    tables = [catalog.find("strategy", name).build().rows(found) for name in ("bitfit", "norm")]
    assert [[row.pattern for row in table] for table in tables] == [
        ["words.*.bias", "scale", "head"],
        ["words.*.LayerNorm", "scale", "head"],
    ]
