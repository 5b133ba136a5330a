"""The benchmark of padding measures what it says: fixed lengths, as many tokens without padding, differences of rows."""

from __future__ import annotations

import pytest

from benchmarks.padding.agree import apart
from benchmarks.padding.job import BATCH, tokens, without_padding


def test_the_lengths_stand_in_a_file_and_are_those_of_zipf() -> None:
    lengths = tokens(2048)
    assert (len(lengths), min(lengths), max(lengths)) == (2048, 8, 256)
    assert sum(length < 46 for length in lengths) / 2048 == pytest.approx(0.5, abs=0.03)  # half lie below the geometric mean of both ends


def test_rows_without_padding_have_as_many_tokens_in_batches_of_one_length() -> None:
    lengths = tokens(1024)
    even = without_padding(lengths)
    assert len(even) == 1024
    assert abs(sum(even) - sum(lengths)) <= BATCH
    assert all(len({*even[start : start + BATCH]}) == 1 for start in range(0, 1024, BATCH))


def test_a_row_that_differs_is_found_and_one_that_is_missing_too() -> None:
    assert apart({"a": 1.0, "b": 2.0}, {"b": 2.5}) == 0.5
    with pytest.raises(KeyError):
        apart({"a": 1.0}, {"b": 1.0})
