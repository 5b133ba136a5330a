"""What happens to rows on any rank is known on all: the ledger and the loss budget of two ranks are those of one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from multitune.core.errors import LossBudgetError
from multitune.core.ledger import Ledger
from multitune.data import plan
from multitune.data.loader import Loader
from multitune.data.split import Examples
from tests.data.plain import Plain, picture_table, recipe

BAD = (1, 4, 5, 9, 12, 15)


class Meeting:
    """Where two threads give each other their texts, as ranks do."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=30)
        self.given: dict[int, Sequence[str]] = {}

    def of(self, rank: int, texts: Sequence[str]) -> list[str]:
        """The texts of both."""
        self.given[rank] = list(texts)
        self.barrier.wait()
        everyone = [text for number in (0, 1) for text in self.given[number]]
        self.barrier.wait()
        return everyone


def damaged(folder: Path) -> Examples:
    """Sixteen pictures, six of them torn."""
    made = plan.outline(recipe(picture_table(folder, 16)), Ledger()).examples["train"]
    for number in BAD:
        (folder / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return made


def walked(examples: Examples, *, max_loss: float, rank: int = 0, meeting: Meeting | None = None) -> tuple[str, int, str]:
    """The ledger's hash after an epoch, how many steps there were, and what ended them early."""
    ledger, steps, said = Ledger(), 0, ""
    shared = {} if meeting is None else {"rank": rank, "world": 2, "gather": lambda texts: meeting.of(rank, texts)}
    loader = Loader(examples, Plain(), seed=3, batch_size=4, micro_batch=1, memo_bytes=0, ledger=ledger, max_loss=max_loss, **shared)
    try:
        for _ in loader.steps(0, 4):
            steps += 1
    except LossBudgetError as error:
        said = str(error)
    return ledger.hash(), steps, said


@pytest.mark.parametrize("max_loss", [1.0, 0.3, 0.1])
def test_two_ranks_have_the_ledger_and_the_loss_budget_of_one(tmp_path: Path, max_loss: float) -> None:
    examples, meeting = damaged(tmp_path), Meeting()
    alone = walked(examples, max_loss=max_loss)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(walked, examples, max_loss=max_loss, rank=rank, meeting=meeting) for rank in range(2)]
    assert [one.result() for one in both] == [alone, alone]
    assert bool(alone[2]) == (max_loss < 6 / 16)
