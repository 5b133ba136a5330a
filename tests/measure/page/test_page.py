"""The page: every section for every shape, nothing from outside, everything escaped, and never large."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Record
from multitune.measure.page import Content, page
from multitune.measure.page.markup import VOID
from multitune.measure.page.words import WORDS
from multitune.measure.report import Report
from tests.measure.page.making import SHAPES, Shape, content

COMMON = ["findings", "figures", "slices", "sources", "curves", "worst", "best", "ledger", "plan"]
OF_SHAPE: dict[Shape, list[str]] = {"classifies": ["ablations", "confusion", "reliability", "classes"], "embeds": [], "speaks": []}
SCRIPT = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """What a browser finds in a page: its tags, its sections and its text; open tags at the end are a mistake."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.sections: list[str] = []
        self.shown = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.sections += [str(dict(attrs)["id"])] if tag == "section" else []
        self._open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += data


@pytest.mark.parametrize("shape", SHAPES)
def test_a_page_has_every_section_of_its_shape(shape: Shape) -> None:
    found = Reader(page(content(shape)))
    assert sorted(found.sections) == sorted(COMMON + OF_SHAPE[shape])
    assert found.tags["img"] == 18
    assert found.tags["audio"] == (0 if shape == "speaks" else 18)


def test_curves_are_drawn_for_whatever_was_told() -> None:
    text = page(content("classifies"))
    for title in ("loss", "lr", "gradient_norm", "update_ratio", "part_share", "seconds", "drift"):
        assert WORDS[title][0] in text
    assert "valid: accuracy" in text
    assert Reader(text).tags["polyline"] >= 12


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_comes_from_outside_and_nothing_runs(shape: Shape) -> None:
    text = page(content(shape))
    assert re.findall(r"(?:https?:)?//[a-z]|url\(|@import|javascript:|\son\w+=", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)) == []
    found = Reader(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(found.tags)


def test_whatever_the_data_hold_is_shown_as_text() -> None:
    made = content("speaks", word=SCRIPT)
    figures = {**made.report.figures, f"test/{SCRIPT}": 0.5}
    details = {SCRIPT: [(SCRIPT, "b"), (SCRIPT, SCRIPT)]}
    finding = Finding("code", Severity.ERROR, SCRIPT, SCRIPT, SCRIPT)
    evil = replace(
        made,
        title=SCRIPT,
        about=SCRIPT,
        plan=SCRIPT,
        facts={SCRIPT: SCRIPT},
        findings=[finding],
        report=replace(made.report, figures=figures, details=details),
        ledger=[Record(SCRIPT, "masked", SCRIPT, SCRIPT)],
        events=[{"step": 1, "seconds": 0.0, "name": f"train/{SCRIPT}", "value": 1.0}],
    )
    text = page(evil)
    found = Reader(text)
    assert found.tags["script"] == 0
    assert "<script" not in text
    assert found.shown.count(SCRIPT) > 20


def test_the_page_of_a_hundred_thousand_rows_stays_under_five_megabytes() -> None:
    made = content("classifies", rows=100_000, side=600, steps=2_000)
    many = {f"test/slice/column=value {n}/accuracy": 0.5 for n in range(5_000)}
    findings = [Finding("code", Severity.INFO, "place", "m" * 5_000) for _ in range(2_000)]
    ledger = [Record(f"row {n}", "dropped", "image", "cause " + "abcdefghij"[n % 10] * (n % 300)) for n in range(20_000)]
    report = replace(made.report, figures={**made.report.figures, **many})
    text = page(replace(made, report=report, findings=findings, ledger=ledger, plan="p" * 3_000_000))
    found = Reader(text)
    assert (found.tags["img"], found.tags["tr"] < 1_000) == (18, True)
    assert WORDS["more"][0] in found.shown
    assert len(text.encode()) < 5_000_000


def test_media_have_a_budget_and_what_is_over_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multitune.measure.page.MOST_BYTES", 300_000)
    text = page(content("classifies"))
    assert len(text) < 500_000
    assert WORDS["media_left_out"][0] in text


def test_what_is_empty_has_no_section() -> None:
    bare = Content("bare", Report("test", 2, {"test/accuracy": 0.5}, {"test/accuracy": "higher"}))
    assert Reader(page(bare)).sections == ["findings", "figures"]


def test_every_label_stands_in_both_languages() -> None:
    found = Reader(page(content("classifies")))
    for english, chinese in (WORDS["figures"], WORDS["worst"], WORDS["ledger"]):
        assert english in found.shown
        assert chinese in found.shown
    assert all(english.strip() and chinese.strip() for english, chinese in WORDS.values())


def test_what_has_no_labels_or_no_words_is_said_to_have_none() -> None:
    assert 'lang="zh">无</span>' in page(content("speaks", word=""))
    assert 'lang="zh">无</span>' not in page(content("speaks"))


def test_names_of_ours_are_translated_and_those_of_users_are_not() -> None:
    made = page(replace(content("classifies"), facts={"parameters moved": "12", "weights of step": "6"}))
    shown = Reader(made).shown
    for chinese in ("变动的参数", "权重取自第几步", "前向", "等待数据", "真值 \\ 预测", "全部"):
        assert chinese in shown
    assert "0.780 – 0.840" in shown
    events = [{"step": step, "seconds": 1.0, "name": "train/gradient_norm/forward", "value": 1.0} for step in (1, 2)]
    assert "前向" not in page(replace(content("classifies"), events=events))


def test_one_line_tells_where_the_time_of_steps_went_over_those_of_which_all_parts_are_known() -> None:
    told = Reader(page(content("classifies"))).shown.partition(WORDS["time_spent"][1])[2]
    assert re.match(r"wait等待数据 2%, forward前向 25%, backward反向 50%, optimizer优化器 2[23]%", told)
    silent = replace(content("classifies"), events=[event for event in content("classifies").events if "optimizer" not in event["name"]])
    assert WORDS["time_spent"][0] not in page(silent)
