"""The gradient of a step is exact, however it is cut."""

from __future__ import annotations

import pytest
import torch

from multitune.core.protocols import Batch, Loss, Needs
from multitune.tuning.gradients import Gradients
from multitune.tuning.losses import contrastive, cross_entropy
from tests.tuning.small import Shape, Small, cut, rows, scope_of, small

CUTS = [(8,), (4, 4), (2, 2, 2, 2), (1,) * 8, (5, 3)]


def loss_for(needs: Needs) -> Loss:
    if needs.answers:
        return cross_entropy.build(cross_entropy.Options(), needs)
    return contrastive.build(contrastive.Options(), needs)


def gradient(family: Small, micro: list[tuple[int, Batch]], *, seed: int = 0) -> torch.Tensor:
    scope = scope_of(family)
    family.zero_grad(set_to_none=True)
    work = Gradients(family, loss_for(family.needs), seed).work(3, micro)
    for position in work.order():
        work.backward(position)
    return torch.cat([torch.zeros(e.parameter.numel()) if e.parameter.grad is None else e.parameter.grad.flatten() for e in scope.entries])


@pytest.mark.parametrize("shape", ["classify", "speak", "embed"])
@pytest.mark.parametrize("sizes", CUTS[1:], ids=str)
def test_any_cut_into_micro_batches_gives_the_gradient_of_the_whole(shape: Shape, sizes: tuple[int, ...]) -> None:
    family = small(shape)
    batch = rows(family, 8)
    whole = gradient(family, cut(batch, (8,)))
    assert whole.norm() > 1e-3
    assert (gradient(family, cut(batch, sizes)) - whole).norm() <= 1e-6 * whole.norm()


def test_a_mean_over_micro_batches_would_be_wrong_where_rows_are_missing() -> None:
    family = small("classify")
    batch = rows(family, 8)
    pieces = cut(batch, (4, 4))
    apart = torch.stack([gradient(family, [piece]) for piece in pieces]).mean(0)
    whole = gradient(family, pieces)
    assert (apart - whole).norm() > 1e-3 * whole.norm()


def test_the_loss_of_a_whole_batch_is_that_of_plain_pytorch() -> None:
    family = small("classify")
    batch = rows(family, 8)
    exact = gradient(family, cut(batch, (8,)))
    family.zero_grad(set_to_none=True)
    there = batch.presence["kind"]
    torch.nn.functional.cross_entropy(family(batch).logits["kind"][there], batch.answers["kind"][there]).backward()
    plain = torch.cat([entry.parameter.grad.flatten() for entry in scope_of(family).entries if entry.parameter.grad is not None])
    assert (exact[exact != 0] - plain[plain != 0]).norm() <= 1e-6 * plain.norm()


def test_pairs_by_gradient_caching_equal_one_plain_backward() -> None:
    family = small("embed")
    batch = rows(family, 8)
    cached = gradient(family, cut(batch, (2, 3, 3)))
    family.zero_grad(set_to_none=True)
    loss = loss_for(family.needs)
    (loss.sums(family(batch), batch)["left_right"] / loss.weights(batch)["left_right"]).backward()
    named = dict(family.named_parameters())
    direct = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in named.values()])
    assert (cached - direct).norm() <= 1e-6 * direct.norm()


def test_dropout_repeats_itself_in_the_second_pass_of_pairs() -> None:
    """Finite differences of the loss under fixed seeds agree with the cached gradient."""
    family = small("embed", dropout=0.3).double()
    micro = cut(rows(family, 6), (2, 2, 2))
    slope = gradient(family, micro)
    weight = family.head["out"].weight
    place = [name for name, _ in family.named_parameters()].index("head.out.weight")
    before = sum(p.numel() for p in list(family.parameters())[:place])
    gradients = Gradients(family, loss_for(family.needs), 0)
    values = []
    for change in (1e-3, -1e-3):
        weight.data[0, 0] += change
        work = gradients.work(3, micro)
        values.append(sum(float(value) for position in work.order() for value in work.backward(position).values()))
        weight.data[0, 0] -= change
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(float(slope[before]), rel=2e-3)


def test_with_dropout_the_same_cut_gives_the_same_bits_and_another_seed_does_not() -> None:
    family = small("classify", dropout=0.3)
    micro = cut(rows(family, 8), (4, 4))
    once = gradient(family, micro)
    torch.manual_seed(99)
    assert torch.equal(once, gradient(family, micro))
    assert not torch.equal(once, gradient(family, micro, seed=1))


def test_one_micro_batch_of_pairs_is_one_forward() -> None:
    family = small("embed")
    calls: list[int] = []
    family.register_forward_hook(lambda *_: calls.append(1))
    gradient(family, cut(rows(family, 8), (8,)))
    assert len(calls) == 1


def test_a_step_of_which_nothing_counts_gives_no_gradient() -> None:
    family = small("classify")
    batch = rows(family, 4)
    batch.presence["kind"][:] = False
    assert gradient(family, cut(batch, (2, 2))).norm() == 0
