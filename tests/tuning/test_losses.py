"""Losses are sums and weights: what does not count changes neither."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from multitune.core.errors import RecipeError
from multitune.core.protocols import AnswerNeed, Batch, Needs, Outputs, PartNeed
from multitune.tuning.losses import contrastive, cross_entropy, regression, sigmoid

PAIR = Needs({"image": PartNeed("image"), "caption": PartNeed("text")}, {})
KIND = Needs({}, {"kind": AnswerNeed("category", labels=("a", "b", "c"))})


def batch(answers: dict[str, torch.Tensor], there: list[bool], ids: tuple[str, ...] = ()) -> Batch:
    names = answers or {"image": 0, "caption": 0}
    return Batch(ids or tuple(map(str, range(len(there)))), {}, answers, {name: torch.tensor(there) for name in names})


def embedded(rows: int, *, seed: int = 0) -> Outputs:
    rng = torch.Generator().manual_seed(seed)
    left, right = (functional.normalize(torch.randn(rows, 5, generator=rng), dim=-1) for _ in range(2))
    return Outputs(embeddings={"image": left, "caption": right}, scalars={"scale": torch.tensor(4.0), "bias": torch.tensor(-2.0)})


def test_rows_without_the_answer_do_not_count_even_where_they_are_nan() -> None:
    loss = cross_entropy.build(cross_entropy.Options(), KIND)
    logits = torch.randn(3, 3)
    logits[1] = torch.nan
    logits.requires_grad_()
    given = batch({"kind": torch.tensor([0, 1, 2])}, [True, False, True])
    value = loss.sums(Outputs(logits={"kind": logits}), given)["kind"]
    value.backward()
    assert loss.weights(given) == {"kind": 2.0}
    assert value.item() == pytest.approx(functional.cross_entropy(logits[[0, 2]], torch.tensor([0, 2]), reduction="sum").item())
    assert logits.grad is not None
    assert torch.equal(logits.grad[1], torch.zeros(3))


def test_tokens_outside_the_answer_do_not_count() -> None:
    loss = cross_entropy.build(cross_entropy.Options(), Needs({}, {"reply": AnswerNeed("text")}))
    logits, truth = torch.randn(2, 4, 7), torch.tensor([[-100, 3, 4, -100], [1, 2, -100, -100]])
    given = batch({"reply": truth}, [True, True])
    plain = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="sum", ignore_index=-100)
    assert loss.weights(given) == {"reply": 4.0}
    assert loss.sums(Outputs(logits={"reply": logits}), given)["reply"].item() == pytest.approx(plain.item())


def test_label_smoothing_is_that_of_plain_pytorch() -> None:
    loss = cross_entropy.build(cross_entropy.Options(label_smoothing=0.1), KIND)
    logits, truth = torch.randn(3, 3), torch.tensor([0, 1, 2])
    plain = functional.cross_entropy(logits, truth, reduction="sum", label_smoothing=0.1)
    assert torch.equal(loss.sums(Outputs(logits={"kind": logits}), batch({"kind": truth}, [True] * 3))["kind"], plain)


@pytest.mark.parametrize("kind", ["squared", "huber"])
def test_a_number_is_judged_by_its_error(kind: str) -> None:
    loss = regression.build(regression.Options.model_validate({"kind": kind}), Needs({}, {"size": AnswerNeed("number")}))
    given = batch({"size": torch.tensor([0.0, 1.0, torch.nan])}, [True, True, False])
    value = loss.sums(Outputs(logits={"size": torch.tensor([3.0, 1.5, 0.0])}), given)["size"].item()
    assert value == pytest.approx({"squared": 9.25, "huber": 2.5 + 0.125}[kind])
    assert loss.weights(given) == {"size": 2.0}


@pytest.mark.parametrize(("module", "modality"), [(cross_entropy, "number"), (regression, "category")])
def test_an_answer_that_does_not_fit_the_loss_is_refused(module: object, modality: str) -> None:
    with pytest.raises(RecipeError, match=f'does not fit the answer "x" \\({modality}\\)'):
        module.build(module.Options(), Needs({}, {"x": AnswerNeed(modality)}))  # type: ignore[attr-defined]


def test_a_pair_loss_is_the_mean_of_both_directions() -> None:
    loss = contrastive.build(contrastive.Options(), PAIR)
    outputs, truth = embedded(4), torch.arange(4)
    scores = 4.0 * outputs.embeddings["image"] @ outputs.embeddings["caption"].T
    plain = 0.5 * (functional.cross_entropy(scores, truth, reduction="sum") + functional.cross_entropy(scores.T, truth, reduction="sum"))
    assert torch.allclose(loss.sums(outputs, batch({}, [True] * 4))["image_caption"], plain)


def test_rows_without_one_part_leave_both_sides_of_a_pair() -> None:
    loss = contrastive.build(contrastive.Options(), PAIR)
    outputs, kept = embedded(4), [0, 2, 3]
    fewer = Outputs(embeddings={name: rows[kept] for name, rows in outputs.embeddings.items()}, scalars=outputs.scalars)
    masked = loss.sums(outputs, batch({}, [True, False, True, True]))
    assert torch.equal(masked["image_caption"], loss.sums(fewer, batch({}, [True] * 3))["image_caption"])


def test_the_same_row_drawn_twice_is_not_its_own_negative() -> None:
    loss = contrastive.build(contrastive.Options(), PAIR)
    outputs = embedded(3)
    twice = Outputs(embeddings={name: rows[[0, 1, 2, 0]] for name, rows in outputs.embeddings.items()}, scalars=outputs.scalars)
    once = loss.sums(outputs, batch({}, [True] * 3, ("a", "b", "c")))["image_caption"]
    value = loss.sums(twice, batch({}, [True] * 4, ("a", "b", "c", "a")))["image_caption"]
    apart = loss.sums(twice, batch({}, [True] * 4, ("a", "b", "c", "d")))["image_caption"]
    assert once < value < apart


@pytest.mark.parametrize("kind", [contrastive, sigmoid], ids=["contrastive", "sigmoid"])
@pytest.mark.parametrize("part", ["image", "caption"])
def test_rows_with_the_same_in_one_part_are_no_negatives_of_each_other(kind: Any, part: str) -> None:
    outputs = embedded(4)
    named = batch({}, [True] * 4, ("a", "b", "c", "d"))
    held = {name: torch.arange(4) for name in ("image", "caption")} | {part: torch.tensor([7, 8, 9, 7])}
    loss, harsh = (kind.build(kind.Options(repeats=wish), PAIR) for wish in ("masked", "negatives"))
    same = replace(named, contents=held)
    as_twins = loss.sums(outputs, replace(named, ids=("a", "b", "c", "a")))["image_caption"]
    assert loss.sums(outputs, same)["image_caption"] == as_twins
    assert harsh.sums(outputs, same)["image_caption"] == harsh.sums(outputs, named)["image_caption"] > as_twins


def test_a_pair_of_which_no_row_has_both_parts_gives_zero() -> None:
    loss = contrastive.build(contrastive.Options(), PAIR)
    given = batch({}, [False, False])
    assert (loss.weights(given), float(loss.sums(embedded(2), given)["image_caption"])) == ({"image_caption": 0.0}, 0.0)


def test_a_pair_of_unknown_parts_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match='Did you mean "caption"'):
        contrastive.build(contrastive.Options(pairs=[("image", "captoin")]), PAIR)
