"""The ledger: exceptions once, sealed segments, a hash that only depends on what became of the rows."""

from __future__ import annotations

from pathlib import Path

from multitune.core.ledger import Ledger


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
