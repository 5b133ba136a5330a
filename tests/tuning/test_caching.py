"""Gradient caching is exact for every loss over pairs that there is, and runs nothing more often than it must."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multitune.core import catalog
from multitune.core.errors import UserError
from multitune.core.protocols import Batch, Features, Loss, Needs, Outputs, PartNeed
from multitune.tuning.gradients import Gradients
from tests.tuning.small import Small, cut, rows, scope_of

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


def slopes(family: Biased) -> dict[str, torch.Tensor]:
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
