"""Gradient caching is exact for every loss over pairs that there is, and runs nothing more often than it must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core import catalog
from multitune.core.errors import UserError
from multitune.core.protocols import Batch, Features, Loss, Needs, Outputs, PartNeed
from multitune.data.workers import Held, Made, Shelf, Spill, held
from multitune.tuning.gradients import Gradients, Slab
from tests.tuning.small import Small, cut, rows, scope_of, small

ROWS = 15
CHUNKS = {"1": (1,) * ROWS, "7": (7, 7, 1), "all": (ROWS,)}
EMBEDS = Needs({"left": PartNeed("text"), "right": PartNeed("text")}, {})


class Biased(Small):
    """With a learned bias too, which some losses read."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__("embed", dropout=dropout)
        self.bias = torch.nn.Parameter(torch.tensor(-1.0))

    def join(self, features: Features, batch: Batch) -> Outputs:
        """The bias beside the scale."""
        outputs = super().join(features, batch)
        return Outputs(embeddings=outputs.embeddings, scalars={**outputs.scalars, "bias": self.bias})


def pair_losses() -> list[str]:
    """The names of all losses over pairs, whoever adds one."""
    found: list[str] = []
    for name in catalog.names("loss"):
        try:
            loss: Loss = catalog.find("loss", name).build(EMBEDS)
        except UserError:
            continue
        found += [name] if loss.over == "pairs" else []
    return found


def biased(*, dropout: float = 0.0) -> Biased:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Biased(dropout=dropout)


def slopes(family: Small) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad for name, parameter in family.named_parameters() if parameter.grad is not None}
    family.zero_grad(set_to_none=True)
    return found


def cached(family: Biased, loss: Loss, sizes: tuple[int, ...], **ranks: Any) -> dict[str, torch.Tensor]:
    scope_of(family)
    mine = ranks.get("ranks")
    micro = [piece for piece in cut(rows(family, ROWS), sizes) if mine is None or piece[0] % mine.world == mine.rank]
    work = Gradients(family, loss, 0, **ranks).work(2, micro)
    for position in work.order():
        work.backward(position)
    if mine is not None:
        mine.sum_gradients(list(family.parameters()))
    return slopes(family)


def with_all_graphs(family: Biased, loss: Loss, sizes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The same chunks under the same seeds, every graph kept, one backward."""
    scope_of(family)
    gradients = Gradients(family, loss, 0)
    each = [gradients.forward(2, index, batch) for index, batch in cut(rows(family, ROWS), sizes)]
    embeddings = {part: torch.cat([outputs.embeddings[part] for outputs in each]) for part in family.needs.parts}
    batch = rows(family, ROWS)
    terms = loss.sums(Outputs(embeddings=embeddings, scalars=each[0].scalars), batch)
    torch.stack([loss.shares.get(name, 1.0) * value / loss.weights(batch)[name] for name, value in terms.items()]).sum().backward()
    return slopes(family)


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    whole = torch.nn.utils.get_total_norm(list(other.values()))
    return one.keys() == other.keys() and all(float((one[name] - tensor).norm()) <= 1e-5 * float(whole) for name, tensor in other.items())


def test_there_are_losses_over_pairs() -> None:
    assert {"contrastive", "sigmoid"} <= set(pair_losses())


@pytest.mark.parametrize("sizes", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("name", pair_losses())
def test_cached_gradients_are_those_of_the_same_chunks_with_all_graphs_kept(name: str, sizes: tuple[int, ...]) -> None:
    family, loss = biased(dropout=0.3), catalog.find("loss", name).build(EMBEDS)
    found = cached(family, loss, sizes)
    assert min(float(found[name].norm()) for name in ("scale", "head.out.weight", "tower.left.encoder.layer.0.output.dense.weight")) > 1e-4
    assert close(found, with_all_graphs(family, loss, sizes))


@pytest.mark.parametrize("sizes", [CHUNKS["1"], CHUNKS["7"]], ids=["1", "7"])
@pytest.mark.parametrize("name", pair_losses())
def test_without_dropout_they_are_those_of_one_undivided_batch(name: str, sizes: tuple[int, ...]) -> None:
    family, loss = biased(), catalog.find("loss", name).build(EMBEDS)
    assert close(cached(family, loss, sizes), with_all_graphs(family, loss, CHUNKS["all"]))


@pytest.mark.parametrize(("sizes", "forwards"), [(CHUNKS["all"], 1), (CHUNKS["7"], 5)], ids=["all", "7"])
def test_the_last_chunk_keeps_its_graph_and_only_the_others_run_twice(sizes: tuple[int, ...], forwards: int) -> None:
    family = biased()
    calls: list[int] = []
    family.tower["left"].register_forward_hook(lambda *_: calls.append(1))
    cached(family, catalog.find("loss", "contrastive").build(EMBEDS), sizes)
    assert len(calls) == forwards


@pytest.mark.parametrize("over", ["pairs", "rows"])
def test_micro_batches_that_are_read_when_asked_for_give_the_bits_of_those_in_memory(
    over: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "LEAST_BYTES", 1)
    family = biased(dropout=0.3) if over == "pairs" else small("classify", dropout=0.3)
    loss: Loss = catalog.find("loss", "contrastive" if over == "pairs" else "cross_entropy").build(family.needs)
    found: list[dict[str, torch.Tensor]] = []
    for limit in (1 << 30, 0):
        scope_of(family)
        micro = shelved(family, tmp_path, limit)
        assert isinstance(micro, tuple) == (limit > 0)
        work = Gradients(family, loss, 0).work(2, micro)
        for position in work.order():
            work.backward(position)
        found.append(slopes(family))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(one, found[1][name]) for name, one in found[0].items())


@pytest.mark.parametrize(("over", "reads"), [("pairs", 3), ("rows", 2)])
def test_of_three_micro_batches_two_are_in_the_file_and_none_is_read_without_need(
    over: str, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "LEAST_BYTES", 1)
    family = biased() if over == "pairs" else small("classify")
    loss: Loss = catalog.find("loss", "contrastive" if over == "pairs" else "cross_entropy").build(family.needs)
    scope_of(family)
    micro, read = shelved(family, tmp_path, 0), list[int]()
    monkeypatch.setattr(Held, "__getitem__", noting(Held.__getitem__, read))
    work = Gradients(family, loss, 0).work(2, micro)
    for position in work.order():
        work.backward(position)
    assert sum(place > 0 for place in read) == reads


def shelved(family: Small, folder: Path, limit: int) -> Sequence[tuple[int, Batch]]:
    """Three micro-batches, those over the limit in a file."""
    shelf = Shelf(Spill(folder), limit)
    for number, batch in cut(rows(family, ROWS), CHUNKS["7"]):
        whole = {part: {name: tensor.clone() for name, tensor in tensors.items()} for part, tensors in batch.inputs.items()}
        shelf.put(number, Made(replace(batch, inputs=whole)))
    return shelf.micro()


def noting(get: Any, read: list[int]) -> Any:
    """The same, each place that is asked for written down."""

    def noted(self: Held, place: int) -> Any:
        read.append(place)
        return get(self, place)

    return noted


@pytest.mark.parametrize("over", ["pairs", "rows"])
def test_gradients_of_several_micro_batches_lie_in_one_block_and_have_the_bits_of_scattered_ones(
    over: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = biased(dropout=0.3) if over == "pairs" else small("classify", dropout=0.3)
    loss: Loss = catalog.find("loss", "contrastive" if over == "pairs" else "cross_entropy").build(family.needs)
    scope_of(family)
    gradients, found = Gradients(family, loss, 0), list[dict[str, torch.Tensor]]()
    for step in (2, 3, 2):
        work = gradients.work(step, cut(rows(family, ROWS), CHUNKS["7"]))
        for position in work.order():
            work.backward(position)
        blocks = {p.grad.untyped_storage().data_ptr() for name, p in family.named_parameters() if p.grad is not None and name != "scale"}
        assert len(blocks) == 1
        found.append({name: tensor.clone() for name, tensor in slopes(family).items()})
    monkeypatch.setattr(Slab, "take", lambda *_: None)
    scattered = cached(family, loss, CHUNKS["7"])
    assert all(torch.equal(tensor, found[place][name]) for place in (0, 2) for name, tensor in scattered.items())


def test_gradients_that_are_added_to_stay_where_they_are() -> None:
    first, other = torch.nn.Parameter(torch.zeros(640)), torch.nn.Parameter(torch.zeros(96))
    slab = Slab()
    first.grad, other.grad = torch.ones(640), torch.arange(96.0)
    slab.take([first, other])
    first.grad, other.grad = None, torch.arange(96.0)
    slab.take([first, other])
    place = other.grad.data_ptr()
    first.grad = torch.full((640,), 5.0)
    slab.take([first, other])
    assert other.grad.data_ptr() == place
    assert torch.equal(first.grad, torch.full((640,), 5.0))
    assert torch.equal(other.grad, torch.arange(96.0))
