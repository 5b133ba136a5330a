"""The ledger: exceptions once, sealed segments, a hash that only depends on what became of the rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitune.core.ledger import Ledger, over_budget


def test_the_same_exception_counts_once() -> None:
    ledger = Ledger()
    assert ledger.record(id="a", fate="quarantined", cause="cut")
    assert not ledger.record(id="a", fate="quarantined", cause="cut")
    assert ledger.counts() == {"quarantined": 1}


def test_what_was_not_sealed_is_gone_after_a_kill_and_met_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(id="a", fate="quarantined", cause="cut")
    ledger.seal("000010")
    ledger.record(id="b", fate="quarantined", cause="cut")
    resumed = Ledger(tmp_path)
    assert resumed.lost() == {"a"}
    assert resumed.record(id="b", fate="quarantined", cause="cut")


def test_the_hash_does_not_depend_on_order_or_segments(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path), Ledger()
    for row in ("a", "b", "c"):
        one.record(id=row, fate="dropped", cause="no caption", part="caption")
        one.seal(row)
    for row in ("c", "a", "b"):
        other.record(id=row, fate="dropped", cause="no caption", part="caption")
    assert one.hash() == other.hash() == Ledger(tmp_path).hash()
    other.record(id="d", fate="dropped", cause="no caption", part="caption")
    assert one.hash() != other.hash()


def test_a_sealed_segment_is_never_overwritten(tmp_path: Path) -> None:
    for row in ("a", "b", "c"):
        ledger = Ledger(tmp_path)
        ledger.record(id=row, fate="quarantined", cause="cut")
        ledger.seal("000010")
    assert Ledger(tmp_path).lost() == {"a", "b", "c"}


def test_what_an_error_leaves_unsealed_is_kept_for_people_and_met_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(id="a", fate="quarantined", cause="cut")
    with pytest.raises(ValueError, match="torn"), ledger.guarded():
        raise ValueError("torn")
    assert '"a"' in (tmp_path / "stopped.jsonl").read_text("utf-8")
    resumed = Ledger(tmp_path)
    assert resumed.lost() == set()
    with resumed.guarded():
        resumed.record(id="a", fate="quarantined", cause="cut")
        resumed.seal("end")
    assert [path.name for path in tmp_path.iterdir()] == ["segment-end.jsonl"]


@pytest.mark.parametrize(
    ("lost", "rows", "share", "over"),
    [(1, 20, 0.01, False), (2, 20, 0.01, True), (1, 20, 0.0, True), (0, 20, 0.0, False), (3, 300, 0.01, False), (4, 300, 0.01, True)],
)
def test_one_lost_row_alone_is_never_too_many_but_where_none_may_be(lost: int, rows: int, share: float, over: bool) -> None:
    assert over_budget(lost, rows=rows, share=share) is over
