"""Retrieval: ranks equal to a plain sort, ties never help, no matrix of all pairs."""

from __future__ import annotations

import tracemalloc
from math import comb

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_hit_rate

from multitune.core.errors import DataError
from multitune.core.protocols import AnswerNeed, Embedding, Prediction
from multitune.core.randomness import generator
from multitune.measure.metrics import retrieval
from multitune.measure.metrics.retrieval import Options, Retrieval, build, chance, ranks_of


def _unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def _pair(rows: int, *, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    left = generator("left", rows).normal(size=(rows, 8))
    return _unit(left), _unit(left + noise * generator("right", rows).normal(size=(rows, 8)))


def _fed(parts: dict[str, np.ndarray], match: str = "", labels: list[str] | None = None) -> Retrieval:
    metric = build(Options(match=match), "", AnswerNeed(""))
    for row in range(len(next(iter(parts.values())))):
        given = {part: Embedding(values[row]) for part, values in parts.items()}
        metric.update(Prediction(str(row), given), {match: labels[row]} if labels else {})
    return metric


def _values(metric: Retrieval) -> dict[str, float]:
    return {figure.name: figure.value for figure in metric.compute(draws=0, seed=0)}


def _slow_ranks(left: np.ndarray, right: np.ndarray, hits: np.ndarray) -> list[int]:
    ranks = []
    for row in range(len(left)):
        order = sorted(range(len(right)), key=lambda column: (-float(left[row] @ right[column]), hits[column] == hits[row]))
        ranks.append(next(rank for rank, column in enumerate(order, 1) if hits[column] == hits[row]))
    return ranks


@pytest.mark.parametrize("classes", [0, 5])
def test_ranks_equal_those_of_sorting_every_row(classes: int) -> None:
    left, right = _pair(60)
    hits = np.arange(60) % classes if classes else np.arange(60)
    assert ranks_of(left, right, hits).tolist() == _slow_ranks(left, right, hits)


def test_ranks_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = _pair(50)
    whole = ranks_of(left, right, np.arange(50)).tolist()
    monkeypatch.setattr(retrieval, "BLOCK", 7 * 50)
    assert ranks_of(left, right, np.arange(50)).tolist() == whole


def test_recall_equals_torchmetrics() -> None:
    left, right = _pair(40)
    labels = [str(row % 8) for row in range(40)]
    values = _values(_fed({"image": left, "caption": right}, "digit", labels))
    same = torch.tensor([[a == b for b in labels] for a in labels])
    scores = torch.from_numpy(left @ right.T)
    for depth in (1, 5, 10):
        expected = np.mean([float(retrieval_hit_rate(scores[row], same[row], top_k=depth)) for row in range(40)])
        assert values[f"image_to_caption/r_at_{depth}"] == pytest.approx(expected)


def test_every_ordered_pair_of_parts_is_measured() -> None:
    left, right = _pair(12)
    names = {name.split("/")[0] for name in _values(_fed({"image": left, "caption": right, "audio": left}))}
    assert names == {f"{a}_to_{b}" for a in ("image", "caption", "audio") for b in ("image", "caption", "audio") if a != b}


def test_embeddings_that_are_all_the_same_stand_last() -> None:
    same = _unit(np.ones((9, 4)))
    values = _values(_fed({"image": same, "caption": same}))
    assert values["image_to_caption/median_rank"] == 9
    assert values["image_to_caption/r_at_5"] == 0


def test_a_row_that_lacks_a_part_leaves_that_pair_only() -> None:
    left, right = _pair(10, noise=0.0)
    metric = _fed({"image": left, "caption": right})
    metric.update(Prediction("alone", {"image": Embedding(right[0])}), {})
    assert _values(metric)["caption_to_image/r_at_1"] == 1.0


def test_the_median_rank_and_its_interval_are_those_of_the_ranks() -> None:
    left, right = _pair(101)
    ranks = ranks_of(left, right, np.arange(101))
    figure = next(f for f in _fed({"a": left, "b": right}).compute(draws=1000, seed=0) if f.name == "a_to_b/median_rank")
    random = generator(3)
    looped = [np.median(ranks[random.integers(101, size=101)]) for _ in range(1000)]
    assert figure.value == np.median(ranks)
    assert (figure.low, figure.high) == pytest.approx(np.quantile(looped, [0.025, 0.975]), abs=2)


def test_an_even_number_of_ranks_has_the_mean_of_the_middle_two() -> None:
    left = _unit(np.eye(4))
    right = left[[0, 1, 3, 2]]
    ranks = ranks_of(left, right, np.arange(4))
    assert _values(_fed({"a": left, "b": right}))["a_to_b/median_rank"] == np.median(ranks)


def test_chance_is_what_a_random_order_reaches() -> None:
    hits = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    expected = [np.mean([1 - comb(8 - m, k) / comb(8, k) for m in (3, 3, 3, 2, 2, 1, 1, 1)]) for k in range(1, 9)]
    assert chance(hits) == pytest.approx(expected)


def test_chance_stands_as_a_baseline() -> None:
    left, right = _pair(20)
    values = {figure.name: figure.value for figure in _fed({"a": left, "b": right}).baseline()}
    assert values["chance/a_to_b/r_at_5"] == pytest.approx(0.25)
    assert values["chance/a_to_b/median_rank"] == 10


def test_a_row_without_the_column_to_match_is_an_error() -> None:
    left, right = _pair(1)
    with pytest.raises(DataError, match=r'evaluate\.match: row 0 has no "digit"'):
        _fed({"a": left, "b": right}, match="digit")


def test_memory_does_not_hold_a_matrix_of_all_pairs() -> None:
    left, right = _pair(4000)
    tracemalloc.start()
    ranks_of(left, right, np.arange(4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 * 2**20  # a block of 2 M similarities and its masks; all pairs would be 64 MB in float32 alone
