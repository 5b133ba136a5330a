"""Plain data written on one line of YAML is read back as it was."""

from __future__ import annotations

from typing import Any

import pytest

from multitune.core.notation.flow import flow
from multitune.core.notation.yaml import parse_yaml

TEXTS = [
    "", " ", "a", "lora", "null", "Null", "true", "no", "~", "1", "1e-4", "0x1f", "007", "5%", "2020-01-01", "a: b", "a #b", "{x}", "[x",
    "a,b", "标签", "図 1", "données", "x\ty", "x\ny", 'say "hi"', "back\\slash", "\\u0041", "C:\\new folder\\täble.csv",
    "my data/a b.png", "./a", "../b", "-", "-x", "?", "&a", "*a", "!t", "%", "@x", "`", "|", ">", "'", "\x00", "\x7f", "\x85",
    "\u2028", "\ufeff", "😀", ".", "..", "...", "---", "e-", "2e5", ".5", "1_000", "12:30:45", "=", "<<", "_x", "y",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_as_it_was_as_value_and_as_name(text: str) -> None:
    assert parse_yaml(f"a: {flow(text)} # and a comment", where="x") == {"a": text}
    assert parse_yaml(f"a: {flow({text: [text, text]})}", where="x") == {"a": {text: [text, text]}}


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -3, 10**12, 1e-8, 0.98, -2.5, 1e300, 3e-4, [], {}, [[], {}], {"a": [1, None, {"b": "no"}]}]
)
def test_plain_data_come_back_with_their_types(value: Any) -> None:
    given = parse_yaml(f"a: {flow(value)}", where="x")["a"]
    assert (given, type(given)) == (value, type(value))


def test_what_reads_well_without_quotes_has_none() -> None:
    assert flow({"name": "lora", "rank": 8, "lr": 3e-4, "warmup": "5%"}) == "{name: lora, rank: 8, lr: 0.0003, warmup: 5%}"
