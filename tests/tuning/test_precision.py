"""Half precision: autocast around each forward, a loss scale for fp16, and an overflow that moves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core.errors import Fault, NonFiniteError
from multitune.tuning import optimizer
from multitune.tuning.gradients import Gradients, Precision
from multitune.tuning.step import LossScale, Step
from tests.tuning.fitting import bits, fit
from tests.tuning.small import Shape, Small, cut, rows, scope_of, small
from tests.tuning.test_gradients import loss_for


def step_of(family: Small, precision: Precision) -> Step:
    scope = scope_of(family)
    moved = optimizer.build(scope, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0)
    for group in moved.param_groups:
        group["lr"] = 1e-3
    return Step(Gradients(family, loss_for(family.needs), 0, precision=precision), scope=scope, optimizer=moved, clip_norm=1.0)


@pytest.mark.parametrize("shape", ["classify", "speak", "embed"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_the_gradient_of_full_precision_nearly(shape: Shape, precision: Precision) -> None:
    """Two micro-batches: a context that kept weights cast without a gradient would lose the second pass of pairs."""
    norms = {}
    for kind in ("fp32", precision):
        family = small(shape)
        norms[kind] = step_of(family, kind)(0, cut(rows(family, 8), (4, 4))).gradient_norm
    assert norms[precision] == pytest.approx(norms["fp32"], rel=0.05)


def test_half_precision_leaves_weights_in_full_precision(tmp_path: Path) -> None:
    family = small("classify")
    fit(family, tmp_path, precision="bf16")
    assert {parameter.dtype for parameter in family.parameters()} == {torch.float32}


def overflowing(family: Small) -> None:
    def hook(_: Any, __: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * torch.inf)

    family.head["drop"].register_forward_hook(hook)


def test_an_overflow_of_fp16_moves_nothing_and_halves_the_scale() -> None:
    family = small("classify")
    step = step_of(family, "fp16")
    overflowing(family)
    before, scale = bits(family), step.scale.value
    report = step(0, cut(rows(family, 8), (4, 4)))
    assert report.skipped
    assert (bits(family), step.scale.value) == (before, scale / 2)


def test_five_overflows_in_a_row_stop_the_run() -> None:
    family = small("classify")
    step = step_of(family, "fp16")
    overflowing(family)
    micro = cut(rows(family, 8), (4, 4))
    assert all(step(number, micro).skipped for number in range(4))
    with pytest.raises(Fault, match="5 times in a row"):
        step(4, micro)


def test_a_loss_that_is_not_finite_is_no_overflow() -> None:
    family = small("classify")
    family.sick = "row-1"
    with pytest.raises(NonFiniteError, match=r"samples row-1\."):
        step_of(family, "fp16")(0, cut(rows(family, 8), (4, 4)))


def test_the_scale_doubles_after_many_good_steps_and_good_steps_forget_overflows() -> None:
    scale = LossScale(8.0, good=1999, overflows=4)
    scale.passed()
    assert (scale.value, scale.good, scale.overflows) == (16.0, 0, 0)
