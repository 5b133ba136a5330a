"""The report as text, and what it says of itself."""

from __future__ import annotations

from multitune.measure.report import Report, judge, number, one_line, table

FIGURES = {
    "test/rows": 400.0,
    "test/rows_lost": 0.0,
    "test/accuracy": 0.912,
    "test/accuracy/low": 0.88,
    "test/accuracy/high": 0.94,
    "test/macro_f1": 0.9,
    "test/class/a/precision": 1.0,
    "test/class/a/recall": 0.5,
    "test/majority/accuracy": 0.11,
    "test/without_image/accuracy": 0.2,
    "test/without_image/accuracy/cost": 0.712,
    "test/without_image/accuracy/cost/low": 0.6,
    "test/without_image/accuracy/cost/high": 0.8,
    "test/shuffled_image/accuracy": 0.15,
    "test/source/x/accuracy": 0.9,
    "test/source/x/accuracy/low": 0.8,
    "test/source/x/accuracy/high": 0.95,
}
REPORT = Report("test", 400, FIGURES, {"test/accuracy": "higher"})


def test_one_line_has_the_primary_figure_with_its_interval() -> None:
    assert one_line(REPORT) == "test: accuracy 0.912 (0.880 to 0.940), 400 rows"


def test_the_table_is_aligned_text() -> None:
    assert table(REPORT.beside({"test/untuned/accuracy": 0.1})).splitlines() == [
        "test: 400 rows",
        "  figure    value  95 % interval   majority  untuned",
        "  accuracy  0.912  0.880 to 0.940  0.110     0.100",
        "  macro_f1  0.900",
        "",
        "  figure    part   left out  costs                   shuffled  costs",
        "  accuracy  image  0.200     0.712 (0.600 to 0.800)  0.150",
        "",
        "  source  figure    value",
        "  x       accuracy  0.900",
        "",
        "  class  precision  recall",
        "  a      1.000      0.500",
    ]


def test_few_rows_and_a_baseline_within_the_interval_are_said() -> None:
    weak = Report("test", 20, FIGURES | {"test/majority/accuracy": 0.9}, {"test/accuracy": "higher"})
    codes = [finding.code for finding in judge(weak)]
    assert codes == ["small-split", "no-better-than-majority"]


def test_lower_may_be_better() -> None:
    figures = {"test/mae": 1.0, "test/mae/low": 0.8, "test/mae/high": 1.2, "test/mean/mae": 1.1}
    report = Report("test", 400, figures, {"test/mae": "lower"})
    assert [finding.code for finding in judge(report)] == ["no-better-than-mean"]
    assert not list(judge(Report("test", 400, figures | {"test/mean/mae": 3.0}, {"test/mae": "lower"})))


def test_a_figure_that_is_surely_worse_than_a_baseline_is_said_so() -> None:
    figures = {"test/accuracy": 0.3, "test/accuracy/low": 0.2, "test/accuracy/high": 0.4, "test/majority/accuracy": 0.5}
    (told,) = judge(Report("test", 400, figures, {"test/accuracy": "higher"}))
    assert told.message == "0.300 (0.200 to 0.400) is surely worse than majority (0.500)."


def test_without_an_interval_nothing_is_sure() -> None:
    (told,) = judge(Report("test", 400, {"test/accuracy": 0.3, "test/majority/accuracy": 0.5}, {"test/accuracy": "higher"}))
    assert told.message == "0.300 is not surely better than majority (0.500)."


def test_numbers_are_short() -> None:
    assert [number(value) for value in (0.12345, 12.3456, 12345.6)] == ["0.123", "12.346", "12,345.6"]
