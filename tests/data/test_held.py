"""A large step's micro-batches leave memory and come back with the same bits, however often they are asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core.errors import Fault
from multitune.core.ledger import Ledger
from multitune.core.plan import Plan
from multitune.core.protocols import Batch
from multitune.data import loader as loading
from multitune.data.loader import Loader, StepBatches
from multitune.data.workers import Held, Made, Shelf, Spill, changed, held, lights
from tests.data.plain import Plain, outlined, picture_table, recipe
from tests.data.test_loader import augmented, examples_of


@pytest.fixture(autouse=True)
def _however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "LEAST_BYTES", 1)


def loader(folder: Path, **options: Any) -> Loader:
    given = {"seed": 3, "batch_size": 6, "micro_batch": 2, "memo_bytes": 1 << 20, "step_bytes": 0} | options
    return Loader(examples_of(folder), Plain(), **given)


def read(step: StepBatches) -> list[Any]:
    return [(number, batch.ids, {part: tensors["x"].tolist() for part, tensors in batch.inputs.items()}) for number, batch in step.micro]


def shelf(folder: Path, batches: list[Batch], *, limit: int = 0, spill: Spill | None = None) -> Shelf:
    made = Shelf(spill or Spill(folder), limit)
    for number, batch in enumerate(batches):
        made.put(number, Made(batch))
    return made


def batch_of(tensor: torch.Tensor) -> Batch:
    return Batch(tuple(str(row) for row in range(len(tensor))), {"image": {"x": tensor}}, {}, {})


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_step_in_the_file_has_the_bits_of_one_in_memory_at_each_reading(tmp_path: Path, workers: int) -> None:
    in_memory = loader(tmp_path, step_bytes=1 << 30, **augmented())
    for put_away, there in zip(loader(tmp_path, workers=workers, **augmented()).steps(0, 4), in_memory.steps(0, 4), strict=True):
        assert isinstance(there.micro, tuple)
        assert isinstance(put_away.micro, Held) == (len(there.micro) > 1)
        assert read(put_away) == read(put_away) == read(there)


def test_a_recipe_says_how_much_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "STEP_BYTES", 0)
    table = picture_table(tmp_path, 11)
    for asked, in_memory in ((-1, False), (0, False), (1, True)):
        made = recipe(table, train={"workers": 0, "batch_size": 6, "micro_batch": 2, "inputs_memory": asked})
        examples = outlined(made).examples["train"]
        first = next(Loader.of(examples, Plain(), recipe=made, plan=Plan("x", {}, {}), ledger=Ledger()).steps(0, 1))
        assert isinstance(first.micro, tuple) == in_memory


def test_a_row_that_cannot_be_read_lacks_in_both_readings_and_stands_in_the_ledger(tmp_path: Path) -> None:
    ledgers = Ledger(), Ledger()
    made = [loader(tmp_path, step_bytes=limit, ledger=ledger) for limit, ledger in zip((0, 1 << 30), ledgers, strict=True)]
    (tmp_path / "3.png").write_bytes(b"")
    for put_away, there in zip(made[0].steps(0, 2), made[1].steps(0, 2), strict=True):
        assert read(put_away) == read(put_away) == read(there)
        assert all("r003" not in batch.ids for _, batch in put_away.micro)
    assert ledgers[0].counts() == ledgers[1].counts() == {"quarantined": 1}


def test_only_the_first_micro_batch_and_what_fits_stays_in_memory(tmp_path: Path) -> None:
    batches = [batch_of(torch.full((2, 4), float(number))) for number in range(6)]
    for limit, stay in ((0, 1), (64, 2), (100, 3), (1 << 10, 6)):
        found = shelf(tmp_path, batches, limit=limit).micro()
        assert (len(found) if isinstance(found, tuple) else sum(not place.away for place in vars(found)["_places"])) == stay
        assert isinstance(found, tuple) == (stay == 6)
        assert [float(batch.inputs["image"]["x"][0, 0]) for _, batch in found] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4).to(torch.bfloat16),
        torch.arange(96.0).reshape(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.zeros(1).expand(2, 5),
        torch.arange(20).reshape(4, 5)[1:3],
        torch.zeros(2, 0),
    ],
    ids=["bfloat16", "channels last", "one number", "a view", "empty"],
)
def test_a_tensor_comes_back_as_it_was(tmp_path: Path, tensor: torch.Tensor) -> None:
    first = batch_of(torch.zeros(2, 1))
    (_, (_, found)) = shelf(tmp_path, [first, batch_of(tensor)]).micro()
    back = found.inputs["image"]["x"]
    assert (back.dtype, back.stride()) == (tensor.dtype, tensor.stride())
    assert torch.equal(back, tensor)


def test_a_disk_that_takes_nothing_leaves_the_step_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    batches = [batch_of(torch.ones(2, 4)), batch_of(torch.zeros(2, 4))]
    assert isinstance(shelf(tmp_path / "file" / "folder", batches).micro(), tuple)


def test_a_disk_that_fills_up_keeps_its_reserve_and_gets_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [batch_of(torch.full((2, 4), float(number))) for number in range(6)]
    spill, usage = Spill(tmp_path), held.shutil.disk_usage(tmp_path)
    written: list[int] = []

    def nearly_full(_: Path) -> Any:
        written.append(1)
        return usage._replace(free=held.RESERVE_BYTES + 32 * (3 - len(written)))

    monkeypatch.setattr(held.shutil, "disk_usage", nearly_full)
    found = shelf(tmp_path, batches, spill=spill).micro()
    assert isinstance(found, Held)
    assert [bool(place.away) for place in vars(found)["_places"]] == [False, True, True, False, False, False]
    assert [float(batch.inputs["image"]["x"][0, 0]) for _, batch in found] == [0, 1, 2, 3, 4, 5]
    assert isinstance(shelf(tmp_path, batches, spill=spill).micro(), tuple), "not tried again in the next step"
    assert os.fstat(vars(spill)["_file"].fileno()).st_size == 0
    assert len(written) == 3


def test_a_file_that_lost_rows_is_a_fault(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    found = shelf(tmp_path, [batch_of(torch.zeros(2, 4)), batch_of(torch.ones(2, 4))], spill=spill).micro()
    vars(spill)["_file"].truncate(8)
    with pytest.raises(Fault, match="cannot be read again"):
        found[1]


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    found = shelf(tmp_path, [batch_of(torch.ones(2, 4)), batch_of(torch.zeros(2, 4))]).micro()
    assert isinstance(found, Held)
    assert not list(tmp_path.iterdir())


def test_the_rows_of_a_step_are_refused_once_the_next_is_asked_for(tmp_path: Path) -> None:
    steps = loader(tmp_path).steps(0, 2)
    before = next(steps).micro
    next(steps)
    with pytest.raises(RuntimeError, match="until the next"):
        before[2]


def test_what_is_changed_is_changed_at_each_reading(tmp_path: Path) -> None:
    micro = shelf(tmp_path, [batch_of(torch.ones(2, 4)), batch_of(torch.zeros(2, 4))]).micro()
    named = changed(micro, lambda batch: Batch(tuple(f"x{name}" for name in batch.ids), batch.inputs, {}, {}))
    assert isinstance(named, Held)
    assert [batch.ids for _, batch in named] == [batch.ids for _, batch in lights(named)] == [("x0", "x1")] * 2
    assert torch.equal(named[1][1].inputs["image"]["x"], torch.zeros(2, 4))
