"""Whether a model uses its parts, told from the figures of a report."""

from __future__ import annotations

from multitune.core import catalog
from multitune.core.finding import Finding
from multitune.measure.report import Report

SHUFFLED = {
    "test/shape/accuracy": 0.9,
    "test/shape/accuracy/low": 0.85,
    "test/pitch/accuracy": 0.8,
    "test/pitch/accuracy/low": 0.7,
    "test/shuffled_audio/shape/accuracy": 0.9,
    "test/shuffled_audio/pitch/accuracy": 0.2,
}
BOTH = {"test/shape/accuracy": "higher", "test/pitch/accuracy": "higher"}


def found(figures: dict[str, float], primary: dict[str, str] = BOTH) -> list[Finding]:
    check = catalog.find("check", "parts").build()
    return list(check.findings({"report": Report("test", 400, figures, primary)}))


def costing(**costs: tuple[float, float]) -> dict[str, float]:
    """The figures of a model that is right in 0.9 of the rows; variant -> the interval of what it costs."""
    figures = {"test/accuracy": 0.9, "test/accuracy/low": 0.88, "test/accuracy/high": 0.92}
    for variant, (low, high) in costs.items():
        name, cost = f"test/{variant}/accuracy", (low + high) / 2
        figures |= {name: 0.9 - cost, f"{name}/cost": cost, f"{name}/cost/low": low, f"{name}/cost/high": high}
    return figures


ONE = {"test/accuracy": "higher"}


def test_a_model_that_loses_by_every_shuffled_part_uses_both() -> None:
    (told,) = found(costing(shuffled_image=(0.3, 0.5), shuffled_audio=(0.1, 0.3)), ONE)
    assert (told.code, told.severity) == ("uses-parts", "info")
    told_costs = '"image" costs 0.400 (0.300 to 0.500) of accuracy; shuffling "audio" costs 0.200 (0.100 to 0.300) of accuracy.'
    assert told.message == f"uses both parts: shuffling {told_costs}"


def test_a_cost_within_its_paired_interval_is_none_though_the_figure_is_lower() -> None:
    (told,) = found(costing(shuffled_image=(0.3, 0.5), shuffled_audio=(-0.01, 0.11)), ONE)
    assert (told.code, told.severity) == ("ignores-part", "warning")
    assert 'does not depend on "audio"' in told.message
    assert "costs 0.050 (-0.010 to 0.110)" in told.message


def test_a_small_cost_that_is_sure_by_pairs_counts_though_the_figure_stays_within_its_interval() -> None:
    (told,) = found(costing(shuffled_image=(0.3, 0.5), shuffled_audio=(0.005, 0.015)), ONE)
    assert told.code == "uses-parts"


def test_a_part_that_others_can_stand_in_for_is_said() -> None:
    (told,) = found(costing(shuffled_image=(0.3, 0.5), shuffled_audio=(0.1, 0.3), without_audio=(-0.1, 0.1)), ONE)
    assert told.message.endswith('Leaving out "audio" costs nothing: the others say enough.')


def test_where_shuffling_was_not_measured_leaving_out_tells() -> None:
    (told,) = found(costing(without_image=(0.3, 0.5), without_audio=(-0.1, 0.1)), ONE)
    assert (told.code, told.evidence["part"]) == ("ignores-part", "audio")


def test_it_says_nothing_where_no_part_was_touched() -> None:
    assert found({"test/accuracy": 0.9}, ONE) == []
    assert not list(catalog.find("check", "parts").build().findings({}))


def test_a_part_that_one_answer_needs_is_not_to_be_left_out() -> None:
    (told,) = found(SHUFFLED)
    assert (told.code, told.severity, told.where) == ("ignores-part", "info", "test/shape/accuracy")
    assert told.remedy == "Keep the part: pitch/accuracy needs it."


def test_a_part_that_no_answer_needs_may_be_left_out() -> None:
    told = found(SHUFFLED | {"test/shuffled_audio/pitch/accuracy": 0.79})
    assert [(one.severity, one.remedy[:16]) for one in told] == [("warning", "See whether the ")] * 2
