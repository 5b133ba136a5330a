"""A large matrix of scores is taken in blocks of rows: the same loss and gradient at the memory of one block."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multitune.core import catalog
from multitune.core.protocols import Batch, Loss, Needs, Outputs, PartNeed
from multitune.tuning.losses import _pairs

ROWS, WIDTH = 300, 8
NEEDS = Needs({name: PartNeed("text") for name in ("left", "right")}, {})
KINDS = {"contrastive": {}, "one way": {"symmetric": False}, "sigmoid": {}}


def build(kind: str) -> Loss:
    made: Loss = catalog.find("loss", "sigmoid" if kind == "sigmoid" else "contrastive", KINDS[kind]).build(NEEDS)
    return made


def batch() -> Batch:
    """Some rows lack a part, one comes twice, and some hold the same."""
    presence = {"left": torch.ones(ROWS, dtype=torch.bool), "right": torch.arange(ROWS) % 17 != 3}
    contents = {"left": torch.arange(ROWS) % 110, "right": torch.arange(ROWS) % 290}
    return Batch(tuple(f"row-{number % 299}" for number in range(ROWS)), {}, {}, presence, contents=contents)


def slopes(loss: Loss) -> list[torch.Tensor]:
    """The loss, its gradient to both sides, the scale and the bias."""
    rng = torch.Generator().manual_seed(0)
    sides = {part: torch.nn.functional.normalize(torch.randn(ROWS, WIDTH, generator=rng)).requires_grad_() for part in NEEDS.parts}
    scalars = {"scale": torch.tensor(9.0, requires_grad=True), "bias": torch.tensor(-3.0, requires_grad=True)}
    value = 3.0 * loss.sums(Outputs(embeddings=sides, scalars=scalars), batch())["left_right"]
    value.backward()
    read = [*sides.values(), scalars["scale"], *([scalars["bias"]] if scalars["bias"].grad is not None else [])]
    return [value.detach(), *(tensor.grad for tensor in read if tensor.grad is not None)]


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_give_the_loss_and_the_gradients_of_the_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = slopes(build(kind))
    monkeypatch.setattr(_pairs, "BLOCK_ENTRIES", 1000)
    blocks = slopes(build(kind))
    assert len(whole) == len(blocks) == (5 if kind == "sigmoid" else 4)
    for one, other in zip(blocks, whole, strict=True):
        assert float((one - other).norm()) <= 1e-6 * float(other.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_blocks_give_the_same_loss(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pairs, "BLOCK_ENTRIES", 1000)
    trained = slopes(build(kind))[0]
    with torch.no_grad():
        rng = torch.Generator().manual_seed(0)
        sides = {part: torch.nn.functional.normalize(torch.randn(ROWS, WIDTH, generator=rng)) for part in NEEDS.parts}
        outputs = Outputs(embeddings=sides, scalars={"scale": torch.tensor(9.0), "bias": torch.tensor(-3.0)})
        assert torch.equal(3.0 * build(kind).sums(outputs, batch())["left_right"], trained)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_of_a_large_step_has_an_entry_for_every_pair(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pairs, "BLOCK_ENTRIES", 1000)
    seen = Largest()
    with seen:
        slopes(build(kind))
    assert 0 < seen.entries <= _pairs.BLOCK_ROWS * ROWS


class Largest(torch.overrides.TorchFunctionMode):
    """The entries of the largest tensor that any function gives inside."""

    entries = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        self.entries = max(self.entries, given.numel() if isinstance(given, torch.Tensor) else 0)
        return given
