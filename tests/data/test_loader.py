"""The loader: the same batches whoever makes them and wherever a run begins; every row once; losses counted, hangs ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from multitune.core import catalog
from multitune.core.errors import DataError, Fault, HungError, LossBudgetError, PluginError
from multitune.core.ledger import Ledger
from multitune.core.plan import Plan
from multitune.core.protocols import Batch, Media, Memo, Part, Sample
from multitune.core.recipe import Recipe
from multitune.data import plan
from multitune.data.batch import contents
from multitune.data.loader import Loader, StepBatches, augmentations, batches
from multitune.data.order import Order, Task
from multitune.data.split import Examples
from multitune.data.workers import Memo as BoundedMemo
from multitune.data.workers import Work
from tests.data.plain import Plain, picture, picture_table, png, recipe, write_jsonl

AUGMENT = [{"name": "crop"}, "dihedral"]


def examples_of(folder: Path, count: int = 11, **data: Any) -> Examples:
    return plan.outline(recipe(picture_table(folder, count), **data), Ledger()).examples["train"]


def loader(examples: Examples, **options: Any) -> Loader:
    return Loader(
        examples, options.pop("preparer", Plain()), **({"seed": 3, "batch_size": 4, "micro_batch": 2, "memo_bytes": 1 << 20} | options)
    )


def flat(steps: Iterator[StepBatches]) -> list[Any]:
    """Steps as plain values, every bit of them."""
    return [(s.step, s.epoch, [(number, batch.ids, bits(batch)) for number, batch in s.micro]) for s in steps]


def bits(batch: Batch) -> dict[str, Any]:
    return {name: tensors["x"].tolist() for name, tensors in batch.inputs.items()}


def ids(steps: Iterator[StepBatches]) -> list[str]:
    return [row_id for step in steps for _, batch in step.micro for row_id in batch.ids]


def augmented() -> dict[str, Any]:
    parts = {"image": {"modality": "image", "augment": AUGMENT}, "caption": "text", "label": "category"}
    return {"augment": augmentations(recipe({"name": "digits"}, parts=parts).data.inputs)}


NEGATIVE = '''"""Turn a picture into its negative."""
from multitune.core import catalog
KIND = "augmentation"
class Options(catalog.Options): ...
class Negative:
    modality = "image"
    def apply(self, value, generator):
        return 255 - value
def build(options):
    return Negative()
'''


def negative(folder: Path) -> Recipe:
    """A recipe over pictures whose augmentation is `negative_here`."""
    parts = {"image": {"modality": "image", "augment": ["negative_here"]}, "caption": "text", "label": "category"}
    return recipe(picture_table(folder, 11), parts=parts, train={"workers": 1})


@pytest.mark.line
def test_a_plugin_of_a_file_reaches_the_worker_processes(tmp_path: Path) -> None:
    (tmp_path / "negative_file.py").write_text(NEGATIVE)
    catalog.register_file(tmp_path / "negative_file.py")
    parts = {"image": {"modality": "image", "augment": ["negative_file"]}, "caption": "text", "label": "category"}
    made, examples = augmentations(recipe({"name": "digits"}, parts=parts).data.inputs), examples_of(tmp_path)
    none, one = (flat(loader(examples, workers=workers, augment=made).steps(0, 3)) for workers in (0, 1))
    assert none == one


def test_a_plugin_in_memory_is_refused_for_worker_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(Options=catalog.Options, build=lambda options: SimpleNamespace(modality="image"))
    monkeypatch.setitem(vars(catalog)["_registered"], ("augmentation", "negative_here"), module)
    made = negative(tmp_path)
    examples = plan.outline(made, Ledger()).examples["train"]
    with pytest.raises(PluginError, match=r'train\.workers: 1 loader .* "negative_here".*--plugin FILE'):
        Loader.of(examples, Plain(), recipe=made, plan=Plan("x", {}, {}), ledger=Ledger())


@pytest.mark.line
def test_workers_0_1_and_2_give_the_same_batches_and_the_same_ledger(tmp_path: Path) -> None:
    examples, ledgers = examples_of(tmp_path), [Ledger() for _ in range(3)]
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:80])
    none, one, two = (flat(loader(examples, workers=n, prefetch=n + 1, ledger=ledgers[n], **augmented()).steps(0, 5)) for n in range(3))
    assert none == one == two
    assert {ledger.hash() for ledger in ledgers} == {ledgers[0].hash()} != {Ledger().hash()}


def same(batch: Batch, part: str) -> set[tuple[str, str]]:
    """Pairs of different rows that hold the same in a part."""
    held = list(zip(batch.ids, batch.contents[part].tolist(), strict=True))
    return {(one, other) for one, a in held for other, b in held if a == b and one < other}


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_say_which_rows_hold_the_same_file_or_text(tmp_path: Path, workers: int) -> None:
    rows = [{"id": f"r{n}", "image": f"{n // 2}.png", "caption": f"text {n % 3}", "label": "ab"[n % 2]} for n in range(6)]
    picture_table(tmp_path, 3)
    examples = plan.outline(recipe(write_jsonl(tmp_path / "repeats.jsonl", rows)), Ledger()).examples["train"]
    made = loader(examples, workers=workers, batch_size=6, micro_batch=6, compared=("image", "caption"), **augmented())
    (batch,) = [batch for step in made.steps(0, 1) for _, batch in step.micro]
    assert same(batch, "image") == {("r0", "r1"), ("r2", "r3"), ("r4", "r5")}
    assert same(batch, "caption") == {("r0", "r3"), ("r1", "r4"), ("r2", "r5")}
    watched = [batch for _, batch in batches(examples, Plain(), size=6, compared=("image",))]
    assert same(watched[0], "image") == same(batch, "image")


def test_parts_that_are_absent_or_cover_other_seconds_are_not_the_same() -> None:
    sounds = [Part("audio", Media("bell"), span) for span in ((0.0, 1.0), (1.0, 2.0), (0.0, 1.0))]
    samples = [Sample(str(n), {"sound": sound, "level": Part("number", 0.5)}) for n, sound in enumerate(sounds)]
    held = contents([*samples, Sample("x", {}), Sample("y", {})], ("sound", "level"))
    assert len(set(held["sound"].tolist())) == 4
    assert held["sound"][0] == held["sound"][2]
    assert len(set(held["level"].tolist())) == 3


def test_an_epoch_takes_every_row_once_and_its_last_batch_is_short(tmp_path: Path) -> None:
    made = loader(examples_of(tmp_path))
    steps = list(made.steps(0, 6))
    assert made.steps_per_epoch == 3
    assert [step.epoch for step in steps] == [0, 0, 0, 1, 1, 1]
    assert [sum(len(batch) for _, batch in step.micro) for step in steps] == [4, 4, 3, 4, 4, 3]
    for epoch in (steps[:3], steps[3:]):
        assert Counter(ids(iter(epoch))) == Counter(made.examples.ids)
    assert ids(iter(steps[:3])) != ids(iter(steps[3:]))


@pytest.mark.parametrize("start", [1, 2, 3, 5])
def test_a_run_that_starts_anywhere_has_the_same_batches(tmp_path: Path, start: int) -> None:
    examples = examples_of(tmp_path)
    assert flat(loader(examples, **augmented()).steps(start, 6)) == flat(loader(examples, **augmented()).steps(0, 6))[start:]


def test_two_ranks_share_the_micro_batches_of_one(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    alone = flat(loader(examples).steps(0, 3))
    first, second = (flat(loader(examples, rank=rank, world=2).steps(0, 3)) for rank in (0, 1))
    joined = [(s, e, sorted(one + other, key=lambda pair: pair[0])) for (s, e, one), (_, _, other) in zip(first, second, strict=True)]
    assert joined == alone


def test_augmentation_depends_on_the_epoch_and_the_row_alone(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)

    def pictures(epoch: int, batch_size: int) -> dict[str, Any]:
        made = loader(examples, batch_size=batch_size, micro_batch=1, **augmented())
        per_epoch = made.steps_per_epoch
        steps = made.steps(epoch * per_epoch, (epoch + 1) * per_epoch)
        return {batch.ids[0]: batch.inputs["image"]["x"].tolist() for step in steps for _, batch in step.micro}

    assert pictures(0, 4) == pictures(0, 3)
    assert pictures(0, 4) != pictures(1, 4)


def test_weights_repeat_whole_parts_and_draw_the_rest_anew() -> None:
    order = Order(30, 0, 4, 4, weights=np.array([1.0] * 10 + [2.0] * 10 + [0.5] * 10))
    counts = [Counter(order.epoch(epoch).tolist()) for epoch in range(2)]
    for count in counts:
        assert [count[n] for n in range(20)] == [1] * 10 + [2] * 10
        assert sorted(count[n] for n in range(20, 30)) == [0] * 5 + [1] * 5
    assert counts[0] != counts[1]
    assert order.rows_per_epoch == 35


def test_a_balanced_epoch_takes_each_class_equally_often_and_rows_of_it_evenly() -> None:
    labels = ["a"] * 24 + ["b"] * 5 + ["c"] * 2 + [None] * 3
    order = Order(34, 0, 4, 4, labels=labels)
    places = order.epoch(0).tolist()
    count = Counter(labels[place] for place in places)
    assert count[None] == 3
    assert sorted((count["a"], count["b"], count["c"])) == [10, 10, 11]
    of_b = [Counter(places)[place] for place in range(24, 29)]
    assert max(of_b) - min(of_b) <= 1
    assert len({len(order.epoch(epoch)) for epoch in range(5)}) == 1


def test_a_mixed_source_of_weight_two_is_seen_twice(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    entries = [
        {"source": {"name": "table", "path": str(picture_table(folder, 4))}, "weight": weight}
        for folder, weight in zip(folders, (1, 2), strict=True)
    ]
    outline = plan.outline(recipe(None, mix=entries), Ledger())
    made = loader(outline.examples["train"])
    seen = Counter(ids(made.steps(0, made.steps_per_epoch)))
    assert [seen[f"table/r00{n}"] for n in range(4)] + [seen[f"table-2/r00{n}"] for n in range(4)] == [1] * 4 + [2] * 4
    assert outline.rows_per_epoch == made.rows_per_epoch == 12


def test_a_bad_part_costs_its_row_alone_and_stands_in_the_ledger(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    clean = ids(loader(examples).steps(0, 3))
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:80])
    ledger = Ledger()
    found = ids(loader(examples, ledger=ledger).steps(0, 6))
    assert found[:10] == [row_id for row_id in clean if row_id != "r005"]
    assert [(r.id, r.fate, r.part, r.source) for r in ledger.records()] == [("r005", "quarantined", "image", "table")]


class Counted(Plain):
    """Makes the same row of the same sample, and says how often it was asked."""

    repeats = True
    asked = 0

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """Counts."""
        self.asked += 1
        return super().prepare(sample, memo)


def test_a_row_is_prepared_once_and_anew_when_its_file_changes(tmp_path: Path) -> None:
    examples, preparer, task = examples_of(tmp_path, 4), Counted(), Task(0, 0, 0, (0, 1, 2, 3))
    work = Work(examples, preparer, 3, {}, 1 << 20)

    def pixels() -> list[Any]:
        batch = work.make(task, BoundedMemo(0)).batch
        assert batch is not None
        return batch.inputs["image"]["x"].tolist()

    before, again = pixels(), pixels()
    assert before == again
    assert preparer.asked == 4
    (tmp_path / "2.png").write_bytes(png(picture(9)))
    after = pixels()
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False, True]
    assert preparer.asked == 5


def test_a_row_that_may_be_another_is_prepared_each_time(tmp_path: Path) -> None:
    preparer, task = Counted(), Task(0, 0, 0, (0, 1))
    for held, asked in ((False, 4), (True, 2)):
        preparer.asked = 0
        work = Work(examples_of(tmp_path, 4), preparer, 3, augmented()["augment"], 1 << 20, views=2 if held else 0, held=held)
        for _ in range(2):
            assert work.make(task, BoundedMemo(0)).batch is not None
        assert preparer.asked == asked


def test_a_micro_batch_without_rows_is_not_there(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 4)
    (tmp_path / "2.png").write_bytes(b"")
    steps = list(loader(examples, micro_batch=1).steps(0, 1))
    assert len(steps[0].micro) == 3
    assert {number for number, _ in steps[0].micro} < {0, 1, 2, 3}


def test_too_many_lost_rows_stop_the_run_and_name_the_last(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    for number in (3, 7):
        (tmp_path / f"{number}.png").unlink()
    assert len(ids(loader(examples, max_loss=0.2).steps(0, 3))) == 9
    with pytest.raises(LossBudgetError, match=r"2 of 11 rows .*there is no file"):
        ids(loader(examples, max_loss=0.1).steps(0, 3))


def test_lost_rows_are_counted_once_over_epochs_and_runs(tmp_path: Path) -> None:
    examples, ledger = examples_of(tmp_path), Ledger(tmp_path / "ledger")
    (tmp_path / "3.png").unlink()
    ids(loader(examples, max_loss=0.1, ledger=ledger).steps(0, 9))
    ledger.seal("a")
    ids(loader(examples, max_loss=0.1, ledger=Ledger(tmp_path / "ledger")).steps(9, 18))


def test_evaluation_takes_rows_in_order_and_leaves_bad_ones_out(tmp_path: Path) -> None:
    examples, ledger = examples_of(tmp_path), Ledger()
    (tmp_path / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    made = list(batches(examples, Plain(), size=4, ledger=ledger, memo=BoundedMemo(0)))
    assert [[sample.id for sample in samples] for samples, _ in made] == [list(batch.ids) for _, batch in made]
    assert [row_id for _, batch in made for row_id in batch.ids] == [row_id for row_id in examples.ids if row_id != "r005"]
    assert ledger.counts() == {"quarantined": 1}


class Truncating(Plain):
    """Says of every row that two tokens did not fit."""

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        return {**super().prepare(sample, memo), "truncated": {"caption": 2}}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        return super().collate([{name: value for name, value in row.items() if name != "truncated"} for row in rows])


def test_what_did_not_fit_stands_in_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger()
    ids(loader(examples_of(tmp_path, 3), preparer=Truncating(), ledger=ledger).steps(0, 1))
    assert {(r.fate, r.part, r.cause) for r in ledger.records()} == {("truncated", "caption", "2 tokens did not fit")}


class Refusing(Plain):
    """Finds a mistake of the user's in one row."""

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        if sample.id == "r002":
            raise DataError("caption", "is no caption.", "Write one.")
        return super().prepare(sample, memo)


class Dying(Plain):
    """Kills its process at one row: each time, or only while a mark is there."""

    def __init__(self, mark: Path | None = None, how: int = signal.SIGKILL) -> None:
        self.mark, self.how = mark, how

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        if sample.id == "r004" and (self.mark is None or self.mark.exists()):
            if self.mark is not None:
                self.mark.unlink()
            os.kill(os.getpid(), self.how)
        return super().prepare(sample, memo)


@pytest.mark.line
@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_mistake_comes_through_as_it_is(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError, match="is no caption"):
        ids(loader(examples_of(tmp_path), preparer=Refusing(), workers=workers).steps(0, 3))


@pytest.mark.line
def test_a_killed_worker_is_replaced_once_and_the_order_kept(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    (tmp_path / "mark").touch()
    assert flat(loader(examples, preparer=Dying(tmp_path / "mark"), workers=1).steps(0, 3)) == flat(loader(examples).steps(0, 3))


@pytest.mark.line
def test_a_worker_that_dies_again_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="SIGKILL"):
        ids(loader(examples_of(tmp_path), preparer=Dying(), workers=1).steps(0, 3))
    assert alive() == []


@pytest.mark.line
def test_a_worker_that_stops_answering_is_ended_and_reported(tmp_path: Path) -> None:
    with pytest.raises(HungError, match="did not answer for 2 seconds"):
        ids(loader(examples_of(tmp_path), preparer=Dying(how=signal.SIGSTOP), workers=1, timeout=2).steps(0, 3))
    assert alive() == []


@pytest.mark.line
def test_no_worker_outlives_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    made = loader(examples_of(tmp_path), workers=1)
    steps = made.steps(0, 100)
    next(steps)
    assert len(alive()) == 1
    made.close()
    assert alive() == []


def alive() -> list[str]:
    return [process.name for process in multiprocessing.active_children() if process.name == "multitune-loader"]


def test_a_memo_forgets_the_least_lately_used_within_its_bytes() -> None:
    memo, made = BoundedMemo(2_000), list[str]()

    def make(key: str) -> torch.Tensor:
        made.append(key)
        return torch.zeros(200)

    for key in ("a", "b", "a", "c", "a", "b"):
        memo.get(key, lambda key=key: make(key))
    assert made == ["a", "b", "c", "b"]
    assert memo.bytes <= 2_000


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    with pytest.raises(DataError, match="no rows"):
        loader(Examples(examples.mixed, examples.rows[:0], examples.parts))
