"""The distillation loss by hand, and what a teacher said joined to batches by id."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from multitune.core import catalog
from multitune.core.errors import RecipeError
from multitune.core.protocols import AnswerNeed, Batch, Needs, Outputs, PartNeed, TaughtLoss
from multitune.tuning.teaching import Table

NEEDS = Needs(
    {"image": PartNeed("image")},
    {"kind": AnswerNeed("category", labels=("a", "b", "c")), "tags": AnswerNeed("labels", labels=("x", "y")), "size": AnswerNeed("number")},
)
IDS = ("one", "two", "three", "four")


def only(*names: str) -> Needs:
    return Needs(NEEDS.parts, {name: NEEDS.answers[name] for name in names})


def made(needs: Needs, **options: Any) -> Any:
    return catalog.find("loss", "distillation", {"teacher": "somewhere", **options}).build(needs)


def batch(ids: tuple[str, ...] = IDS) -> Batch:
    rng = torch.Generator().manual_seed(3)
    answers = {"kind": torch.tensor([0, 2, 1, -100]), "tags": torch.ones(4, 2), "size": torch.zeros(4)}
    there = {name: torch.ones(4, dtype=torch.bool) for name in (*NEEDS.parts, *NEEDS.answers)}
    there["kind"] = torch.tensor([True, True, True, False])
    columns = {
        "answer/kind": torch.randn(3, 3, generator=rng).log_softmax(-1),
        "answer/tags": torch.randn(3, 2, generator=rng),
        "answer/size": torch.randn(3, generator=rng),
        "feature/image": torch.randn(3, 6, generator=rng),
    }
    return Table(("three", "one", "four"), columns).joined(Batch(ids, {}, answers, there))  # the teacher could not read "two"


def outputs(width: int = 6) -> Outputs:
    rng = torch.Generator().manual_seed(4)
    logits = {"kind": torch.randn(4, 3, generator=rng), "tags": torch.randn(4, 2, generator=rng), "size": torch.randn(4, generator=rng)}
    return Outputs(logits=logits, features={"image": torch.randn(4, width, generator=rng)})


def test_what_a_teacher_said_is_joined_by_id_whatever_the_order() -> None:
    first, second = batch(), batch(IDS[::-1])
    assert first.teacher["there"].tolist() == [True, False, True, True]
    for name in ("answer/kind", "feature/image"):
        assert torch.equal(first.teacher[name], second.teacher[name].flip(0))
        assert not bool(first.teacher[name][1].any())
    rng = torch.Generator().manual_seed(3)
    assert torch.equal(first.teacher["answer/kind"][0], torch.randn(3, 3, generator=rng).log_softmax(-1)[1])


def test_a_category_is_taught_by_the_divergence_of_what_both_say_softened() -> None:
    loss, rows, said = made(only("kind"), temperature=3.0, alpha=0.7), batch(), outputs()
    goal = (rows.teacher["answer/kind"] / 3).softmax(-1)
    student = (said.logits["kind"] / 3).softmax(-1)
    by_row = (goal * (goal / student).log()).sum(-1)
    found = loss.sums(said, rows)
    assert torch.allclose(found["kind_teacher"], 9 * by_row[[0, 2, 3]].sum(), atol=1e-5)
    assert loss.weights(rows) == {"kind": 3.0, "kind_teacher": 3.0}
    assert loss.shares == pytest.approx({"kind": 0.3, "kind_teacher": 0.7})
    plain = functional.cross_entropy(said.logits["kind"][:3], rows.answers["kind"][:3], reduction="sum")
    assert torch.equal(found["kind"], plain)


def test_labels_and_numbers_are_taught_each_in_their_way() -> None:
    loss, rows, said = made(only("tags", "size"), temperature=2.0), batch(), outputs()
    there = [0, 2, 3]
    goal, student = torch.sigmoid(rows.teacher["answer/tags"][there] / 2), torch.sigmoid(said.logits["tags"][there] / 2)
    apart = goal * (goal / student).log() + (1 - goal) * ((1 - goal) / (1 - student)).log()
    found = loss.sums(said, rows)
    assert torch.allclose(found["tags_teacher"], 4 * apart.sum(), atol=1e-5)
    assert torch.allclose(found["size_teacher"], (said.logits["size"] - rows.teacher["answer/size"])[there].square().sum())


def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn() -> None:
    loss, rows = made(only("kind", "tags", "size"), features="mse"), batch()
    same = {name: rows.teacher[f"answer/{name}"] for name in NEEDS.answers}
    found = loss.sums(Outputs(logits=same, features={"image": rows.teacher["feature/image"]}), rows)
    for term in ("kind_teacher", "tags_teacher", "size_teacher", "image_features"):
        assert abs(float(found[term])) < 1e-5, term


@pytest.mark.parametrize("kind", ["mse", "cosine"])
@pytest.mark.parametrize("width", [6, 4, 9])
def test_vectors_of_other_widths_are_matched_through_a_fixed_projection(kind: str, width: int) -> None:
    loss, rows, said = made(only("kind"), features=kind, features_share=0.1), batch(), outputs(width)
    found = loss.sums(said, rows)["image_features"]
    assert torch.equal(found, made(only("kind"), features=kind).sums(said, rows)["image_features"])
    assert torch.isfinite(found)
    if width == 6:
        pairs = [(said.features["image"][row], rows.teacher["feature/image"][row]) for row in (0, 2, 3)]
        wanted = [(a - b).square().mean() if kind == "mse" else 1 - torch.cosine_similarity(a, b, dim=0) for a, b in pairs]
        assert torch.allclose(found, torch.stack(wanted).sum(), atol=1e-6)


def test_the_share_nought_leaves_the_plain_loss_and_one_the_teacher_alone() -> None:
    plain = catalog.find("loss", "cross_entropy", {}).build(only("kind"))
    rows, said = replace(batch(), teacher={}), outputs()
    alone = made(only("kind"), alpha=0)
    assert (alone.terms, dict(alone.shares)) == (("kind",), {"kind": 1.0})
    assert torch.equal(alone.sums(said, rows)["kind"], plain.sums(said, rows)["kind"])
    assert made(only("kind"), alpha=1).terms == ("kind_teacher",)


def test_a_loss_says_whether_it_has_a_teacher() -> None:
    assert isinstance(made(only("kind")), TaughtLoss)
    assert not isinstance(catalog.find("loss", "cross_entropy", {}).build(only("kind")), TaughtLoss)


def test_vectors_that_a_model_does_not_give_are_named() -> None:
    with pytest.raises(RecipeError, match=r'loss\.features: there is no pooled vector of "image"'):
        made(only("kind"), features="mse").sums(Outputs(logits=outputs().logits), batch())


def test_answers_that_cannot_be_taught_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"distillation does not fit"):
        made(Needs(NEEDS.parts, {"words": AnswerNeed("text")}))
