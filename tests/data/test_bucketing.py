"""Rows of like length come together: every row once, within a window, by a pure function, and never over the budget."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multitune.core.errors import RecipeError
from multitune.core.protocols import Sample
from multitune.core.recipe import make_recipe
from multitune.data.bucketing.grouping import Grouping
from multitune.data.bucketing.lengths import Lengths, Stream, measured
from multitune.data.bucketing.outlook import Outlook, look, padding
from multitune.data.order import Order
from multitune.data.split import Examples
from tests.data.plain import Plain, memory, of_texts, outlined, texts

ROWS = 103


class Counting(Plain):
    """Knows a caption's length by its letters; how often it was asked for some rows stands in `asked`."""

    def __init__(self) -> None:
        self.asked = 0

    def lengths(self, samples: list[Sample]) -> dict[str, Stream]:
        self.asked += bool(samples)
        real = [len(sample.parts["caption"].value) if "caption" in sample.parts else 0 for sample in samples]
        return {"caption": Stream(real, [-(-one // 4) * 4 for one in real])}


def lengths(rows: int = ROWS, streams: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(5).pareto(1.0, size=(rows, streams)) * 6
    return (8 * np.ceil(np.clip(drawn, 1, 160) / 8)).astype(np.int32)


def order(*, window: int = 4, budget: int = 0, rows: int = ROWS, streams: int = 1, micro: int = 2, **more: Any) -> Order:
    padded = lengths(rows, streams)
    return Order(rows, 3, 5, micro, grouping=Grouping(padded, padded.sum(1, dtype=np.int64), window, budget), **more)


def plain() -> Order:
    return Order(ROWS, 3, 5, 2)


def captions(rows: int = 40) -> Examples:
    made = texts(rows, caption=lambda n: "x" * (1 + (n * 7) % 23))
    return outlined(of_texts(made)).examples["train"]


@pytest.mark.parametrize("budget", [0, 480])
def test_an_epoch_takes_every_row_once_and_another_epoch_in_another_order(budget: int) -> None:
    made = order(budget=budget)
    first, second = (np.concatenate(made.batches(epoch)).tolist() for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second


def test_rows_of_a_batch_are_of_like_length_and_the_order_of_batches_is_not() -> None:
    grouped, drawn = order(window=20), plain()
    lasts = [int(batch[-1]) for batch in grouped.batches(0)[:-1]]
    ends = [int(lengths()[place, 0]) for place in lasts]

    def wasted(made: Order) -> int:
        return sum(int((lengths()[batch].max() - lengths()[batch]).sum()) for batch in made.batches(0))

    assert wasted(grouped) < 0.2 * wasted(drawn)
    assert ends != sorted(ends)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_window_bounds_how_far_a_row_moves(window: int) -> None:
    before = {place: number for number, batch in enumerate(plain().batches(0)) for place in batch.tolist()}
    after = {place: number for number, batch in enumerate(order(window=window).batches(0)) for place in batch.tolist()}
    assert max(abs(before[place] - after[place]) for place in before) == window - 1


def test_a_window_of_one_keeps_every_batch_and_sorts_its_rows() -> None:
    grouped, drawn = order(window=1).batches(0), plain().batches(0)
    assert [sorted(batch.tolist()) for batch in grouped] == [sorted(batch.tolist()) for batch in drawn]
    assert all(np.all(np.diff(lengths()[batch, 0]) >= 0) for batch in grouped)


def test_the_last_batch_holds_the_rows_that_it_would_hold_ungrouped() -> None:
    assert sorted(order(window=50).batches(1)[-1].tolist()) == sorted(plain().batches(1)[-1].tolist())
    assert [len(batch) for batch in order().batches(0)] == [5] * 20 + [3]


def test_weights_and_balance_draw_as_they_do_ungrouped() -> None:
    weights = np.array([1.0] * 50 + [2.5] * 53)
    grouped, drawn = order(weights=weights), Order(ROWS, 3, 5, 2, weights=weights)
    assert Counter(np.concatenate(grouped.batches(2)).tolist()) == Counter(drawn.epoch(2).tolist())


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("window", [1, 7])
def test_a_budget_is_never_exceeded_and_mostly_filled(window: int, streams: int) -> None:
    made, padded = order(budget=512, window=window, streams=streams), lengths(ROWS, streams)
    taken = [len(batch) * int(padded[batch].max(0).sum()) for batch in made.batches(0)]
    assert max(taken) <= 512
    assert np.median(taken) > 0.7 * 512 or window == 1 or streams > 1


@pytest.mark.parametrize("budget", [0, 480])
def test_steps_begin_anywhere_as_they_would_have_come(budget: int) -> None:
    made, again = order(budget=budget), order(budget=budget)
    stop = made.steps_in(3)
    every = list(made.tasks(0, stop))
    assert [epoch for _, epoch, _ in every] == sorted(epoch for _, epoch, _ in every)
    assert [sum(epoch == one for _, epoch, _ in every) for one in range(3)] == [made.steps_of(one) for one in range(3)]
    for start in (1, made.steps_of(0) - 1, made.steps_of(0), stop - 1):
        assert list(again.tasks(start, stop)) == every[start:]


def test_epochs_with_a_budget_differ_in_steps_and_their_sum_is_told() -> None:
    made = order(budget=512, window=2)
    counts = [made.steps_of(epoch) for epoch in range(6)]
    assert len(set(counts)) > 1
    assert [made.steps_in(epochs) for epochs in (1, 2, 6, 0.5)] == [counts[0], sum(counts[:2]), sum(counts), round(counts[0] / 2)]


@pytest.mark.parametrize("budget", [0, 480])
def test_two_ranks_share_what_one_has(budget: int) -> None:
    alone = [tasks for _, _, tasks in order(budget=budget).tasks(0, 20)]
    both = [[tasks for _, _, tasks in order(budget=budget).tasks(0, 20, rank=rank, world=2)] for rank in (0, 1)]
    assert [sorted(a + b, key=lambda task: task.micro) for a, b in zip(*both, strict=True)] == alone


def test_a_budget_without_micro_batches_gives_each_rank_its_share() -> None:
    made = order(budget=480, micro=0)
    for _, _, tasks in made.tasks(0, 10, world=1):
        assert len(tasks) == 1
    shares = [[tasks[0] for _, _, tasks in made.tasks(0, 3, rank=rank, world=2)] for rank in (0, 1)]
    assert all(0 <= len(a.places) - len(b.places) <= 1 for a, b in zip(*shares, strict=True))


def test_lengths_are_measured_once_and_anew_when_a_row_or_what_is_kept_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path))
    preparer, examples = Counting(), captions()
    first = measured(examples, preparer)
    again = measured(captions(), preparer)
    assert first is not None
    assert again is not None
    assert (preparer.asked, again.digest) == (1, first.digest)
    assert np.array_equal(again.padded, first.padded)
    other = measured(captions(41), preparer)
    assert other is not None
    assert (preparer.asked, other.digest == first.digest) == (2, False)
    for kept in (tmp_path / "lengths").rglob("*.safetensors"):
        kept.write_bytes(kept.read_bytes()[:-1] + b"\x01")
    torn = measured(examples, preparer)
    assert torn is not None
    assert (preparer.asked, torn.digest) == (3, first.digest)


def test_what_a_plan_expects_of_padding_is_counted_batch_by_batch() -> None:
    real = np.array([[1], [4], [2], [8]], np.int32)
    found = padding(Order(4, 0, 2, 2, grouping=Grouping(real, real[:, 0].astype(np.int64), 2)), Lengths(("a",), real, real))
    assert found == pytest.approx(1 - 15 / (2 * 2 + 2 * 8))


def asked(**train: Any) -> Outlook:
    return look(of_texts(texts(40), train=train), captions(), Counting(), over="rows")


def test_a_row_over_the_budget_is_named_and_so_is_a_stream_that_is_not_there() -> None:
    with pytest.raises(RecipeError, match=r"batch_tokens: the row r\d+ alone takes 24 tokens, and a batch may have 20"):
        asked(batch_tokens=20)
    with pytest.raises(RecipeError, match=r'bucket\.by: "captoin" is no stream .* Did you mean "caption"'):
        asked(bucket="captoin")
    asked(batch_tokens=24)


def test_a_loss_over_pairs_keeps_its_batches_and_takes_no_budget() -> None:
    made = of_texts(texts(40), train={"bucket": "auto", "micro_batch": 4})
    seen = look(made, captions(), Counting(), over="pairs")
    assert seen.grouping is not None
    assert seen.grouping.window == 1
    assert seen.values(made)["train.bucket"].origin == "derived"
    with pytest.raises(RecipeError, match="over pairs"):
        look(of_texts(texts(40), train={"batch_tokens": 100}), captions(), Counting(), over="pairs")


def test_rows_and_tokens_exclude_each_other_and_an_override_chooses() -> None:
    base = {"name": "x", "task": "classification", "data": {"source": memory(texts(4)), "parts": {"caption": "text"}}}
    with pytest.raises(RecipeError, match="only one can hold"):
        make_recipe(base | {"train": {"batch_size": 8, "batch_tokens": 100}})
    made = make_recipe(base | {"train": {"batch_size": 8}}, ["train.batch_tokens=100"])
    assert (made.train.batch_tokens, made.train.given("batch_size")) == (100, False)


def test_much_padding_is_told_where_nothing_is_grouped_and_a_grouping_that_does_nothing_too() -> None:
    rows = texts(60, caption=lambda n: "x" * (400 if n % 8 == 0 else 3))
    made = of_texts(rows)
    examples = outlined(made).examples["train"]

    def codes(**train: Any) -> list[str]:
        given = of_texts(rows, train=train)
        return [one.code for one in look(given, examples, Counting(), over="rows").findings(given, over="rows")]

    assert codes() == ["padding"]
    assert codes(bucket={"window": 1}) == ["bucket-idle"]
    assert codes(bucket="auto") == codes(bucket={"window": 1}, micro_batch=4) == []
