"""Compiled blocks give the gradient that uncompiled ones give, and only while a step is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from multitune.core import catalog
from multitune.core.errors import Fault
from multitune.core.protocols import Batch
from multitune.core.recipe import TuningRow
from multitune.models.layers.recomputing import recompute
from multitune.models.replay.replaying import giving
from multitune.tuning.compiling import blocks, calls
from multitune.tuning.compiling.blocks import Compiled
from multitune.tuning.gradients import Gradients, Precision
from multitune.tuning.ranks import Ranks
from multitune.tuning.scope import Scope
from tests.models.test_recomputing import own_tower
from tests.tuning.small import EVERYTHING, rows, scope_of, small

TRACED = "aot_eager"  # traced, guarded and remembered as ever; the code that then runs is torch's own, and nothing waits for a compiler
LORA = (TuningRow.model_validate({"pattern": "image.layers.*", "insert": {"name": "lora", "rank": 2}}), TuningRow(pattern="head"))
Micro = Sequence[tuple[int, Batch]]


def slopes(
    family: Any, scope: Scope, micro: Micro, compiled: Compiled | None = None, *, precision: Precision = "fp32"
) -> dict[str, torch.Tensor]:
    """The gradient of every tensor that moves, compiled or not."""
    scope.enter(0)
    loss = "cross_entropy" if family.needs.answers else "contrastive"
    gradients = Gradients(family, catalog.find("loss", loss).build(family.needs), seed=5, precision=precision)
    with (compiled or Compiled({})).step(0):
        work = gradients.work(0, micro)
        for position in work.order():
            work.backward(position)
    found = {entry.name: entry.parameter.grad.clone() for entry in scope.entries if entry.parameter.grad is not None}
    family.zero_grad(set_to_none=True)
    assert found
    return found


def apart(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest difference, in shares of the spread of the whole gradient."""
    assert one.keys() == other.keys()
    spread = torch.cat([tensor.flatten() for tensor in one.values()]).std()
    return max(float((tensor - other[name]).abs().max() / spread) for name, tensor in one.items())


def some(batch: Batch, count: int) -> Batch:
    """The first rows of a batch."""
    inputs = {part: {name: tensor[:count] for name, tensor in given.items()} for part, given in batch.inputs.items()}
    answers, presence = ({name: tensor[:count] for name, tensor in known.items()} for known in (batch.answers, batch.presence))
    return replace(batch, ids=batch.ids[:count], inputs=inputs, answers=answers, presence=presence)


def pictures(table: tuple[TuningRow, ...] = EVERYTHING, *, dropout: float = 0.0) -> tuple[Any, Scope, Micro]:
    """A family on a tower of pictures, and micro-batches of which no two have as many rows."""
    family, batch = own_tower(dropout=0.3)
    for block in family.towers["image"].layers:
        block.dropout.p = dropout
    return family, scope_of(family, table), [(place, some(batch, count)) for place, count in enumerate((4, 3, 2))]


def words(shape: Any) -> tuple[Any, Scope, Micro]:
    """A family on towers of words with dropout, and micro-batches of which no two are as long."""
    family = small(shape, dropout=0.3)
    made: list[tuple[int, Batch]] = []
    for place, length in enumerate((6, 4, 5, 3)):
        batch = rows(family, 4, first=place * 4)
        inputs = {part: {name: tensor[:, :length] for name, tensor in given.items()} for part, given in batch.inputs.items()}
        made.append((place, replace(batch, inputs=inputs)))
    return family, scope_of(family), made


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("table", [EVERYTHING, pytest.param(LORA, marks=pytest.mark.slow)], ids=["all", "lora"])
def test_traced_blocks_of_our_own_give_the_same_gradient(table: tuple[TuningRow, ...], again: bool) -> None:
    family, scope, micro = pictures(table)
    if again:
        recompute(family.towers)
    plain = slopes(family, scope, micro)
    compiled = Compiled(family.towers, backend=TRACED)
    assert apart(plain, slopes(family, scope, micro, compiled)) < 1e-5
    assert 2 <= compiled.graphs <= 4, "one for the first number of rows, one for all others; apart where nothing below moves"
    assert compiled.findings() == []


@pytest.mark.slow
@pytest.mark.parametrize("backend", [TRACED, "inductor"])
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("shape", ["classify", "embed"])
def test_blocks_of_transformers_give_the_same_gradient_for_words_of_any_length(shape: Any, again: bool, backend: str) -> None:
    family, scope, micro = words(shape)
    if again:
        recompute(family.towers)
    plain = slopes(family, scope, micro)
    compiled = Compiled(family.towers, backend=backend)
    assert apart(plain, slopes(family, scope, micro, compiled)) < 1e-5
    assert 2 * len(family.towers) <= compiled.graphs <= 6 * len(family.towers), "far from one for each length, block and pass"


@pytest.mark.slow
def test_really_compiled_blocks_give_the_same_gradient_with_dropout() -> None:
    family, scope, micro = pictures(dropout=0.3)
    plain = slopes(family, scope, micro[:1])
    compiled = Compiled(family.towers)
    assert apart(plain, slopes(family, scope, micro[:1], compiled)) < 1e-5
    assert compiled.graphs == 1


@pytest.mark.slow
def test_really_compiled_blocks_with_adapters_give_the_same_gradient() -> None:
    family, scope, micro = pictures(LORA, dropout=0.3)
    plain = slopes(family, scope, micro)
    assert apart(plain, slopes(family, scope, micro, Compiled(family.towers))) < 1e-5


def away(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """How long the difference of two gradients is, in shares of the second."""
    assert one.keys() == other.keys()
    first, second = (torch.cat([given[name].flatten().double() for name in other]) for given in (one, other))
    return float((first - second).norm() / second.norm())


@pytest.mark.slow
@pytest.mark.parametrize("made", ["pictures", "words"])
def test_in_bf16_really_compiled_blocks_are_nearer_to_plain_ones_than_these_are_to_fp32(made: str) -> None:
    family, scope, micro = pictures(dropout=0.3) if made == "pictures" else words("embed")
    micro = micro[:2]
    exact, plain = slopes(family, scope, micro), slopes(family, scope, micro, precision="bf16")
    compiled = slopes(family, scope, micro, Compiled(family.towers, precision="bf16"), precision="bf16")
    assert away(compiled, plain) < 5e-3
    assert away(compiled, plain) < away(plain, exact) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_of_compiled_blocks_the_second_pass_of_a_cached_gradient_gives_what_the_first_gave(precision: Precision) -> None:
    family, scope, micro = words("embed")
    seen: list[torch.Tensor] = []
    family.register_forward_hook(lambda _, __, outputs: seen.extend(one.detach() for one in outputs.embeddings.values()))
    slopes(family, scope, micro[:2], Compiled(family.towers, precision=precision), precision=precision)
    assert len(seen) == 6, "both parts of two micro-batches, and of the first again"
    apart = max(float((first - again).abs().max()) for first, again in zip(seen[:2], seen[4:], strict=True))
    assert apart <= (1e-6 if precision == "fp32" else 2**-8), "of vectors of length one; graphs without a way back are others"


def test_outside_a_step_nothing_is_compiled_and_nothing_is_left() -> None:
    family, scope, micro = pictures()
    recompute(family.towers)
    layers = list(family.towers["image"].layers)
    own = [vars(layer)["forward"] for layer in layers]
    compiled = Compiled(family.towers, backend=TRACED)
    inside: list[Any] = []

    def failing() -> None:
        with compiled.step(0):
            inside.extend(vars(layer)["forward"] for layer in layers)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert not {*map(id, inside)} & {*map(id, own)}
    assert [type(one) for one in inside] == [type(one) for one in own], "computed again as before, around what is compiled"
    assert [vars(layer)["forward"] for layer in layers] == own
    slopes(family, scope, micro)
    assert compiled.graphs == 0


def test_what_was_compiled_is_compiled_again_from_a_checkpoint_in_the_same_order() -> None:
    family, scope, micro = pictures()
    first = Compiled(family.towers, backend=TRACED)
    slopes(family, scope, micro, first)
    first.gather(Ranks())
    second = Compiled(family.towers, backend=TRACED)
    second.restore(first.facts(), scope=scope, ranks=Ranks())
    second.gather(Ranks())
    assert second.graphs == first.graphs >= 2
    assert second.facts() == first.facts()
    slopes(family, scope, micro, second)
    assert second.graphs == first.graphs, "nothing is left to compile"


@pytest.mark.slow
def test_what_another_run_of_the_process_compiled_changes_nothing() -> None:
    facts: list[Mapping[str, Any]] = []
    for _ in range(2):
        family, scope, micro = pictures()
        compiled = Compiled(family.towers, backend=TRACED)
        slopes(family, scope, micro, compiled)
        compiled.gather(Ranks())
        facts.append(compiled.facts())
    assert facts[0] == facts[1]


def test_too_many_graphs_are_told_and_the_blocks_go_on_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "GRAPHS", 1)
    family, scope, micro = pictures()
    plain = slopes(family, scope, micro)
    compiled = Compiled(family.towers, backend=TRACED)
    assert apart(plain, slopes(family, scope, micro, compiled)) < 1e-5
    assert [finding.code for finding in compiled.findings()] == ["compile-limit"]
    compiled.gather(Ranks())
    resumed = Compiled(family.towers, backend=TRACED)
    resumed.restore(compiled.facts(), scope=scope, ranks=Ranks())
    assert [finding.code for finding in resumed.findings()] == ["compile-limit"]
    known = resumed.graphs
    slopes(family, scope, micro, resumed)
    assert resumed.graphs == known


def test_a_machine_that_cannot_compile_says_so() -> None:
    family, scope, micro = pictures()
    with pytest.raises(Fault, match=r"train\.compile: torch cannot compile"):
        slopes(family, scope, micro, Compiled(family.towers, backend="unheard-of"))
    assert "forward" not in vars(family.towers["image"].layers[0])


def test_blocks_behind_something_unknown_stay_as_they_are() -> None:
    family, scope, micro = pictures()
    for layer in family.towers["image"].layers:
        layer.forward = layer.forward
    compiled = Compiled(family.towers, backend=TRACED)
    slopes(family, scope, micro, compiled)
    assert compiled.graphs == 0
    assert [finding.code for finding in compiled.findings()] == ["not-compiled"]


def test_a_block_that_gives_stored_features_in_a_step_is_compiled_again_after_it() -> None:
    family, _, _ = pictures()
    block = family.towers["image"].layers[1]
    compiled, stored = Compiled(family.towers, backend=TRACED), torch.ones(2)
    with compiled.step(0):
        inside = vars(block)["forward"]
        with giving(block, lambda *_: stored):
            assert block(torch.zeros(2)) is stored
        assert vars(block)["forward"] is inside
    assert "forward" not in vars(block)


class Given(nn.Module):
    """A block that is given something which is no tensor and no plain value."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, states: torch.Tensor, turn: slice) -> torch.Tensor:
        """states (rows, 2), and the same shape out."""
        return self.linear(states)[turn]


class Chain(nn.Module):
    """Two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Given(), Given()])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """states (rows, 2), and the same shape out."""
        for layer in self.layers:
            states = layer(states, slice(None))
        return states


def test_inputs_that_cannot_be_written_down_are_told() -> None:
    tower = Chain()
    compiled = Compiled({"words": tower}, backend=TRACED)
    with compiled.step(0):
        tower(torch.ones(3, 2))
    assert {finding.code for finding in compiled.findings()} == {"compile-not-kept"}
    compiled.gather(Ranks())
    resumed = Compiled({"words": tower}, backend=TRACED)
    resumed.restore(compiled.facts(), scope=pictures()[1], ranks=Ranks())
    assert resumed.findings() == compiled.findings()


def test_a_call_is_written_down_by_the_shapes_of_its_tensors() -> None:
    wide = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True).expand(2, 3)
    given = ((torch.empty_strided((4, 3), (1, 4)), None, 2, [torch.tensor(True)]), {"mask": wide, "turn": (torch.zeros(0, 5), "x")})
    kept = calls.written(given)
    assert kept is not None
    again = calls.read(kept)
    (turned, nothing, two, (flag,)), named = again
    assert turned._base is None
    assert (turned.shape, turned.stride(), nothing, two, flag.dtype, flag.shape) == ((4, 3), (1, 4), None, 2, torch.bool, ())
    assert (named["mask"].stride(), named["mask"].dtype, named["mask"].requires_grad) == ((1, 0), torch.float64, True)
    assert (named["mask"]._base.shape, named["mask"]._base.requires_grad) == ((2, 1), True)
    assert (named["turn"][0].shape, named["turn"][1]) == ((0, 5), "x")
    assert calls.written(((object(),), {})) is None
