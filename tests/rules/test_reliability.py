"""The page of what multitune survives: each test that it names is there, its sums are right, and both languages say the same."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rules.source import ROOT, tree_of

PAGES = ("docs/reliability.md", "docs/zh/reliability.md")
VERDICTS = {"已覆盖": "covered", "部分覆盖": "partly", "未覆盖": "not covered", "尚未实现": "not built"}
ROWS = {*map(str, range(1, 87)), *(f"M{number}" for number in range(1, 15))}
ROW = re.compile(r"^\| (M?\d+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", flags=re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@dataclass(frozen=True)
class Row:
    """What a page says of one fault, without its words. numbers: that stand beside the tests, sorted."""

    number: str
    verdict: str
    tests: tuple[tuple[str, str], ...]
    numbers: tuple[str, ...]


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def rows_of(page: str) -> list[Row]:
    """The rows of a page in order."""
    found: list[Row] = []
    for number, _, _, verdict, proof in ROW.findall(text_of(page)):
        numbers = re.findall(r"\d[\d,.]*\d|\d", TEST.sub("", proof))
        found.append(Row(number, VERDICTS.get(verdict, verdict), tuple(TEST.findall(proof)), tuple(sorted(numbers))))
    return found


def functions_in(path: Path) -> dict[str, str]:
    """The tests of a file, with their decorators and the file's marks as text."""
    body = tree_of(path).body
    marks = "".join(ast.unparse(node) for node in body if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node))
    return {node.name: marks + "".join(map(ast.unparse, node.decorator_list)) for node in body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES)
def test_every_row_is_there_once_and_has_a_verdict(page: str) -> None:
    rows = rows_of(page)
    assert Counter(row.number for row in rows) == Counter(ROWS)
    assert {row.verdict for row in rows} <= set(VERDICTS.values())


def test_every_test_that_is_named_is_there() -> None:
    named = {test for row in rows_of(PAGES[0]) for test in row.tests}
    lost = [f"{file}::{name}" for file, name in sorted(named) if not (ROOT / file).is_file() or name not in functions_in(ROOT / file)]
    assert lost == []


def test_what_is_said_to_be_tested_names_a_test_and_what_is_not_names_none() -> None:
    rows = rows_of(PAGES[0])
    assert [row.number for row in rows if row.verdict in {"covered", "partly"} and not row.tests] == []
    assert [row.number for row in rows if row.verdict == "not covered" and row.tests] == []


@pytest.mark.parametrize(("page", "word"), [(PAGES[0], "Missing:"), (PAGES[1], "缺：")])
def test_what_is_partly_tested_says_what_is_missing(page: str, word: str) -> None:
    says = {number: word in today for number, _, today, _, _ in ROW.findall(text_of(page))}
    assert [row.number for row in rows_of(page) if (row.verdict == "partly") != says[row.number]] == []


@pytest.mark.parametrize(("page", "word"), [(PAGES[0], "slow"), (PAGES[1], "慢")])
def test_a_row_whose_every_test_is_slow_says_so(page: str, word: str) -> None:
    slow: list[str] = []
    for number, _, _, _, proof in ROW.findall(text_of(page)):
        marks = [functions_in(ROOT / file).get(name, "") for file, name in TEST.findall(proof)]
        if marks and all("mark.slow" in mark for mark in marks) and word not in proof:
            slow.append(number)
    assert slow == []


def test_both_languages_have_the_same_rows_tests_counts_and_verdicts() -> None:
    english, chinese = map(rows_of, PAGES)
    assert english == chinese


@pytest.mark.parametrize("page", PAGES)
def test_the_page_ends_with_its_sums(page: str) -> None:
    sums = re.findall(r"^\| ([^|\d\n]+) \| (\d+) \|", text_of(page), flags=re.MULTILINE)
    assert {VERDICTS.get(verdict, verdict): int(count) for verdict, count in sums} == Counter(row.verdict for row in rows_of(page))


@pytest.mark.parametrize("page", PAGES)
def test_the_rows_that_are_listed_as_not_covered_are_those(page: str) -> None:
    listed = re.findall(r"^- (M?\d+)[,，:：]", text_of(page), flags=re.MULTILINE)
    assert Counter(listed) == Counter(row.number for row in rows_of(page) if row.verdict == "not covered")
