"""Losses over answers: each equals what is written by hand with torch's own functions, and is exact over micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from multitune.core import catalog
from multitune.core.errors import RecipeError
from multitune.core.protocols import AnswerNeed, Batch, Loss, Needs, Outputs

KIND = AnswerNeed("category", labels=("a", "b", "c"), counts=(6, 3, 3))
TAGS = AnswerNeed("labels", labels=("x", "y"), counts=(4, 2))
SIZE = AnswerNeed("number")
THERE = torch.tensor([True, True, False, True, True, True, True, False])
GIVEN = {
    "kind": torch.tensor([0, 1, -100, 2, 0, 0, 1, -100]),
    "tags": torch.tensor([[1.0, 0], [0, 0], [0, 0], [1, 1], [0, 1], [1, 0], [0, 0], [0, 0]]),
    "size": torch.arange(8.0) / 4 - 1,
}


def build(loss: str, needs: dict[str, AnswerNeed], **options: object) -> Loss:
    made: Loss = catalog.find("loss", loss, options).build(Needs({}, needs))
    return made


def batch(answers: dict[str, torch.Tensor], rows: slice = slice(None)) -> Batch:
    ids = tuple(map(str, range(8)))[rows]
    return Batch(ids, {}, {name: value[rows] for name, value in answers.items()}, dict.fromkeys(answers, THERE[rows]))


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))


def mean(loss: Loss, name: str, made: torch.Tensor, sizes: tuple[int, ...] = (8,)) -> torch.Tensor:
    """The loss of a step that is cut into micro-batches of these sizes."""
    whole = batch({name: GIVEN[name]})
    weight, total, start = loss.weights(whole)[name], torch.zeros(()), 0
    for size in sizes:
        rows = slice(start, start + size)
        total = total + loss.sums(Outputs(logits={name: made[rows]}), batch({name: GIVEN[name]}, rows))[name] / weight
        start += size
    return total


def test_weights_of_classes_give_torchs_weighted_mean() -> None:
    loss = build("cross_entropy", {"kind": KIND}, weights={"a": 0.5, "c": 3}, label_smoothing=0.1)
    made, weight = logits(3), torch.tensor([0.5, 1.0, 3.0])
    plain = functional.cross_entropy(made[THERE], GIVEN["kind"][THERE], weight=weight, label_smoothing=0.1)
    assert mean(loss, "kind", made).item() == pytest.approx(plain.item())


def test_balanced_weights_make_every_class_count_the_same_over_train() -> None:
    by_class = build("cross_entropy", {"kind": KIND}, weights={"a": 4 / 6, "b": 4 / 3, "c": 4 / 3})
    assert torch.equal(
        mean(build("cross_entropy", {"kind": KIND}, weights="balanced"), "kind", logits(3)), mean(by_class, "kind", logits(3))
    )


def test_each_label_is_judged_by_itself() -> None:
    loss, made = build("multi_label", {"tags": TAGS}), logits(2)
    plain = functional.binary_cross_entropy_with_logits(made[THERE], GIVEN["tags"][THERE])
    assert mean(loss, "tags", made).item() == pytest.approx(plain.item())


def test_weights_and_positives_of_labels_are_torchs() -> None:
    loss, made = build("multi_label", {"tags": TAGS}, weights="balanced", positive=2.0), logits(2)
    weight = torch.tensor([3 / 4, 3 / 2])
    plain = functional.binary_cross_entropy_with_logits(
        made[THERE], GIVEN["tags"][THERE], weight=weight, pos_weight=torch.tensor(2.0), reduction="sum"
    )
    assert mean(loss, "tags", made).item() == pytest.approx(plain.item() / (6 * weight.sum().item()))


def test_smoothed_labels_are_nearer_to_a_half() -> None:
    made, truth = logits(2), GIVEN["tags"][THERE]
    plain = functional.binary_cross_entropy_with_logits(made[THERE], 0.8 * truth + 0.1)
    assert mean(build("multi_label", {"tags": TAGS}, label_smoothing=0.2), "tags", made).item() == pytest.approx(plain.item())


def test_focal_is_cross_entropy_times_what_is_missing() -> None:
    made = logits(3)
    probability = made[THERE].softmax(-1).gather(1, GIVEN["kind"][THERE][:, None])[:, 0]
    plain = (-((1 - probability) ** 2) * probability.log() * torch.tensor([1.0, 2.0, 1.0])[GIVEN["kind"][THERE]]).mean()
    assert mean(build("focal", {"kind": KIND}, weights={"b": 2.0}), "kind", made).item() == pytest.approx(plain.item())


def test_focal_of_labels_is_torchvisions() -> None:
    from torchvision.ops import sigmoid_focal_loss

    made = logits(2)
    plain = sigmoid_focal_loss(made[THERE], GIVEN["tags"][THERE], alpha=-1, gamma=1.5, reduction="mean")
    assert mean(build("focal", {"tags": TAGS}, gamma=1.5), "tags", made).item() == pytest.approx(plain.item())


def test_focal_without_gamma_is_cross_entropy_and_a_sure_answer_has_a_slope() -> None:
    made = logits(3).requires_grad_()
    assert mean(build("focal", {"kind": KIND}, gamma=0.0), "kind", made).item() == pytest.approx(
        mean(build("cross_entropy", {"kind": KIND}), "kind", made).item()
    )
    sure = (1e4 * functional.one_hot(GIVEN["kind"].clamp(min=0), 3).float()).requires_grad_()
    mean(build("focal", {"kind": KIND}, gamma=0.5), "kind", sure).backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


@pytest.mark.parametrize(
    ("loss", "name", "options"),
    [
        ("cross_entropy", "kind", {"weights": "balanced"}),
        ("focal", "kind", {"weights": "balanced"}),
        ("focal", "tags", {}),
        ("multi_label", "tags", {"weights": "balanced"}),
        ("several", "kind", {"uncertainty": True}),
        ("several", "size", {"uncertainty": True}),
    ],
)
def test_eight_of_one_and_four_of_two_give_the_gradient_of_the_whole(loss: str, name: str, options: dict[str, object]) -> None:
    need = {"kind": KIND, "tags": TAGS, "size": SIZE}[name]
    slopes: list[torch.Tensor] = []
    for sizes in ((8,), (1,) * 8, (2,) * 4):
        made = logits(*(() if name == "size" else (len(need.labels),))).requires_grad_()
        mean(build(loss, {name: need}, **options), name, made, sizes).backward()
        assert made.grad is not None
        slopes.append(made.grad)
    assert slopes[0].norm() > 1e-3
    assert all((slope - slopes[0]).norm() <= 1e-6 * slopes[0].norm() for slope in slopes)


def test_several_answers_are_each_judged_by_what_fits() -> None:
    needs = {"kind": KIND, "tags": TAGS, "size": SIZE}
    loss = build("several", needs, answers={"size": {"name": "regression", "kind": "huber"}})
    given = batch(GIVEN)
    outputs = Outputs(logits={"kind": logits(3), "tags": logits(2), "size": logits()})
    alone = {"kind": build("cross_entropy", {"kind": KIND}), "tags": build("multi_label", {"tags": TAGS})}
    alone["size"] = build("regression", {"size": SIZE}, kind="huber")
    assert loss.terms == ("kind", "tags", "size")
    assert all(torch.equal(loss.sums(outputs, given)[name], one.sums(outputs, given)[name]) for name, one in alone.items())


def test_learned_shares_are_kendalls() -> None:
    loss = build("several", {"kind": KIND, "size": SIZE}, uncertainty=True)
    assert isinstance(loss, torch.nn.Module)
    own = dict(loss.named_parameters())
    assert sorted(own) == ["uncertainty.kind", "uncertainty.size"]
    with torch.no_grad():
        own["uncertainty.kind"].fill_(0.7)
        own["uncertainty.size"].fill_(-0.4)
    given, outputs = batch({n: GIVEN[n] for n in ("kind", "size")}), Outputs(logits={"kind": logits(3), "size": logits()})
    entropy = functional.cross_entropy(outputs.logits["kind"][THERE], GIVEN["kind"][THERE])
    squared = functional.mse_loss(outputs.logits["size"][THERE], GIVEN["size"][THERE])
    found = {name: value / loss.weights(given)[name] for name, value in loss.sums(outputs, given).items()}
    torch.testing.assert_close(found["kind"], torch.exp(torch.tensor(-0.7)) * entropy + 0.35)
    torch.testing.assert_close(found["size"], 0.5 * torch.exp(torch.tensor(0.4)) * squared - 0.2)


@pytest.mark.parametrize(
    ("loss", "needs", "options", "told"),
    [
        ("cross_entropy", {"kind": KIND}, {"weights": {"aa": 1.0}}, '"aa" is no class of kind in train; they are a, b, c.'),
        ("cross_entropy", {"kind": KIND}, {"weights": {"a": -1.0}}, "loss.weights.a: found -1"),
        ("cross_entropy", {"kind": KIND}, {"weights": {"a": 0, "b": 0, "c": 0}}, "every class of kind weighs 0"),
        ("cross_entropy", {"kind": KIND, "other": KIND}, {"weights": {"a": 2.0}}, "several answers with classes"),
        ("cross_entropy", {"kind": AnswerNeed("category", labels=("a",))}, {"weights": "balanced"}, "is not known"),
        ("cross_entropy", {"tags": TAGS}, {}, "Use multi_label"),
        ("cross_entropy", {"kind": KIND, "size": SIZE}, {}, "Use several"),
        ("multi_label", {"kind": KIND}, {}, "Use cross_entropy"),
        ("focal", {"size": SIZE}, {}, "Use regression"),
        ("several", {"kind": KIND}, {"answers": {"kind": "contrastive"}}, "contrastive needs two parts"),
        ("several", {"kind": KIND}, {"answers": {"kin": "focal"}}, 'Did you mean "kind"'),
        ("several", {"kind": KIND}, {"shares": {"kind": -1.0}}, "not turned round"),
        ("several", {"kind": KIND}, {"answers": {"kind": {"name": "focal", "shares": {"kind": 5.0}}}}, "loss.answers.kind.shares"),
    ],
)
def test_what_does_not_hang_together_is_named(loss: str, needs: dict[str, AnswerNeed], options: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(loss, needs, **options)
    assert told in str(caught.value)


def test_weights_may_be_given_for_each_of_several_answers() -> None:
    loss = build("cross_entropy", {"kind": KIND, "other": KIND}, weights={"other": {"b": 5.0}, "kind": "balanced"})
    given = batch({"kind": GIVEN["kind"], "other": GIVEN["kind"]})
    assert loss.weights(given) == {"kind": pytest.approx(3 * 4 / 6 + 3 * 4 / 3), "other": 3 + 10 + 1}
