"""The common part of the benchmarks: sides in turn, each in its own process; medians, ratios and what is written of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.beside import Section, Side, Wanted, answers, best, cleared, extrapolated, judged, merged, ratio, spread, table, threads
from multitune.core.errors import Fault

SAYS = """
import json, os, sys
job = json.load(open(sys.argv[1]))
assert os.listdir(job["folder"]) == []
open(os.path.join(job["folder"], "left"), "w").close()
with open(job["order"], "a") as order:
    order.write(job["who"])
json.dump({"seconds": job["seconds"], "threads": job["threads"], "said": os.environ["OMP_NUM_THREADS"]}, open(sys.argv[2], "w"))
"""


@pytest.fixture
def pair(tmp_path: Path) -> list[Side]:
    script = tmp_path / "side.py"
    script.write_text(SAYS)
    return [Side(name, (str(script),), job={"who": name, "seconds": 2.0 * place}) for place, name in enumerate("ab", 1)]


def job(tmp_path: Path) -> dict[str, str]:
    return {"order": str(tmp_path / "order")}


def test_sides_run_in_turn_another_one_first_each_time_and_on_the_same_threads(tmp_path: Path, pair: list[Side]) -> None:
    found = answers(tmp_path / "run", pair, job(tmp_path), repeats=2)
    assert (tmp_path / "order").read_text() == "abba"
    assert [answer["seconds"] for answer in found["b"]] == [4.0, 4.0]
    assert {(answer["threads"], answer["said"]) for side in found.values() for answer in side} == {(threads(), str(threads()))}
    assert all(answer["process_seconds"] > 0 and answer["peak_bytes"] > 1 << 20 for answer in found["a"])


def test_what_a_side_answered_is_read_again_and_another_job_is_asked_anew(tmp_path: Path, pair: list[Side]) -> None:
    before = answers(tmp_path / "run", pair, job(tmp_path), repeats=1)
    assert answers(tmp_path / "run", pair, job(tmp_path), repeats=1) == before
    assert (tmp_path / "order").read_text() == "ab"
    answers(tmp_path / "run", pair, {**job(tmp_path), "rows": 3}, repeats=1)
    assert (tmp_path / "order").read_text() == "abab"


def test_a_fresh_benchmark_moves_the_earlier_answers_aside(tmp_path: Path, pair: list[Side]) -> None:
    answers(cleared(tmp_path / "run", fresh=False), pair, job(tmp_path), repeats=1)
    assert list(cleared(tmp_path / "run", fresh=True).iterdir()) == []
    assert len(list(tmp_path.glob("run.old-*/a/0/answer.json"))) == 1


def test_a_side_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "side.py").write_text("raise SystemExit('no picture')")
    with pytest.raises(Fault, match=r"theirs ended with 1; what it said is in .*theirs/0/log\.txt"):
        answers(tmp_path / "run", [Side("theirs", (str(tmp_path / "side.py"),))], {}, repeats=1)
    assert "no picture" in (tmp_path / "run" / "theirs" / "0" / "log.txt").read_text()


def test_ratios_are_of_medians_and_the_best_is_the_smallest() -> None:
    found = {"a": [{"s": 1.0}, {"s": 2.0}, {"s": 90.0}], "b": [{"s": 8.0}], "c": [{"s": 6.0}]}
    assert ratio(found, "s", "b", "a") == 4.0
    assert best(found, "s", ("b", "c")) == "c"
    assert spread(found["a"], "s") == 44.5
    assert spread(found["b"], "s") == 0.0


def test_many_epochs_are_the_first_and_the_median_of_the_rest() -> None:
    assert extrapolated([10.0, 4.0, 6.0], 20) == 10.0 + 19 * 5.0
    assert extrapolated([10.0, 4.0, 6.0], 2) == 14.0


def test_a_figure_outside_its_bounds_or_not_there_is_told() -> None:
    wanted = [Wanted("speedup", at_least=13), Wanted("limit", at_most=1.1)]
    assert judged({"speedup": 13.0, "limit": 1.1, "memory": 5.0}, wanted)[1]
    assert not judged({"speedup": 12.9, "limit": 1.0}, wanted)[1]
    assert not judged({"speedup": 13.0}, wanted)[1]
    lines, _ = judged({"speedup": 12.9}, wanted)
    assert lines[2:] == ["| `speedup` | 12.9 | >= 13 | **not met** |", "| `limit` | | <= 1.1 | **not measured** |"]


def test_the_table_has_the_median_and_the_spread_and_leaves_out_what_a_side_does_not_say() -> None:
    found = {"ours": [{"seconds": 1.0, "hits": 0}, {"seconds": 3.0, "hits": 0}], "theirs": [{"seconds": 4.0}]}
    assert list(table(found, ("hits",), first="seconds"))[2:] == ["| ours | 2 | 100.0 % of 2 | 0 |", "| theirs | 4 | 0.0 % of 1 |  |"]


def test_a_section_takes_the_place_of_the_one_of_its_name_and_the_others_stay() -> None:
    text = "# Results\n\nOf all.\n\n## `a`, 2026-11-01\n\nold\n\n## `a --quick`, 2026-11-02\n\nkept\n### deeper\n"
    again = merged(text, [Section("`a`, 2026-11-03", ("new",)), Section("`b`, 2026-11-03", ("first",))])
    sections = ["# Results\n\nOf all.", "## `a`, 2026-11-03\n\nnew", "## `a --quick`, 2026-11-02\n\nkept\n### deeper"]
    assert again == "\n\n".join([*sections, "## `b`, 2026-11-03\n\nfirst\n"])
    assert merged(again, []) == again
    assert merged(json.dumps("no section"), []) == '"no section"\n'
