"""A run on stored features: the same bits cold, warm, with workers, killed and resumed; the same ledger and figures as without."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.result import Result
from tests.line.lines import bits, recipe
from tests.line.test_bad_input import pictures
from tests.line.test_goes_on import ended

pytestmark = pytest.mark.line


def over_frozen(folder: Path, **changes: Any) -> dict[str, Any]:
    """A classifier over frozen towers whose features are kept in a folder."""
    made = recipe("classifies", strategy=[{"pattern": "fusion*"}, {"pattern": "head*"}])
    made["data"]["source"] |= {"rows": 120}
    made["train"] |= {"steps": 4}
    made["evaluate"] |= {"ablations": True, "baselines": True}
    return made | {"features": {"store": "on", "folder": str(folder)}} | changes


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """A store, a run that filled it, and its result."""
    root = tmp_path_factory.mktemp("features")
    return root / "store", root / "cold", multitune.train(over_frozen(root / "store"), run=root / "cold")


def test_a_cold_run_encodes_what_it_reads_and_says_so(cold: tuple[Path, Path, Result]) -> None:
    store, run, result = cold
    assert result.figures["features/hits"] == 0
    assert result.figures["features/encoded"] > 0
    text = (run / "plan.txt").read_text("utf-8")
    assert "bytes a row" in text
    listed = multitune.store(action="list", folder=store)
    assert listed.figures["rows"] == result.figures["features/encoded"]
    assert multitune.store(action="verify", folder=store).ok


def test_a_warm_run_with_workers_encodes_nothing_and_gives_the_same_bits(cold: tuple[Path, Path, Result], tmp_path: Path) -> None:
    store, run, result = cold
    made = over_frozen(store)
    made["train"] |= {"workers": 2}
    warm = multitune.train(made, run=tmp_path / "warm")
    assert (warm.figures["features/hits"], warm.figures["features/encoded"]) == (result.figures["features/encoded"], 0)
    assert warm.figures["features/checked"] > 0
    assert bits(tmp_path / "warm") == bits(run)


def test_a_killed_run_goes_on_to_the_same_bits(cold: tuple[Path, Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run, _ = cold
    ended(monkeypatch, tmp_path / "run", over_frozen(tmp_path / "store"))
    multitune.store(action="prune", folder=tmp_path / "store", to="0")
    result = multitune.train(over_frozen(tmp_path / "store"), run=tmp_path / "run")
    assert result.figures["features/encoded"] > 0
    assert bits(tmp_path / "run") == bits(run)


def test_another_head_and_rate_hit_everything_and_the_figures_are_those_without_a_store(
    cold: tuple[Path, Path, Result], tmp_path: Path
) -> None:
    store, _, result = cold
    made = over_frozen(store, loss={"name": "cross_entropy", "label_smoothing": 0.1})
    made["train"] |= {"lr": 3e-3}
    again = multitune.train(made, run=tmp_path / "again")
    assert (again.figures["features/hits"], again.figures["features/encoded"]) == (result.figures["features/encoded"], 0)
    plain = multitune.train(made | {"features": {"store": "off"}}, run=tmp_path / "plain")
    for name in ("test/accuracy", "test/untuned/accuracy", "test/without_image/accuracy", "test/shuffled_audio/accuracy"):
        assert again.figures[name] == plain.figures[name]
    losses = [[step["value"] for step in events(run, "train/loss")] for run in (tmp_path / "again", tmp_path / "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def events(run: Path, name: str) -> list[dict[str, Any]]:
    """The events of one name."""
    lines = (run / "events.jsonl").read_text("utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event.get("name") == name]


def over_pictures(table: Path, **changes: Any) -> dict[str, Any]:
    """A head over frozen pictures of a table."""
    return {
        "name": "pictures",
        "task": "classification",
        "data": {
            "source": {"name": "table", "path": str(table)},
            "parts": {"image": "image", "label": "category"},
            "answers": ["label"],
            "max_loss": 0.05,
        },
        "model": {"name": "fusion_encoder", "towers": {"image": "tiny/image"}},
        "strategy": [{"pattern": "fusion*"}, {"pattern": "head*"}],
        "train": {"steps": 16, "batch_size": 16, "threads": 1, "evaluate_every": 16},
        "evaluate": {"intervals": 50, "baselines": False, "ablations": False},
    } | changes


def test_what_cannot_be_decoded_is_quarantined_the_same_with_a_store_and_without(tmp_path: Path) -> None:
    table = pictures(tmp_path / "data", 120)
    victim = tmp_path / "data" / "7.png"
    victim.write_bytes(victim.read_bytes()[:60])
    ledgers = []
    for name, features in {"off": {"store": "off"}, "on": {"store": "on", "folder": str(tmp_path / "store")}}.items():
        result = multitune.train(over_pictures(table, features=features), run=tmp_path / name)
        assert result.figures["rows_quarantined"] == 1
        ledgers.append(["".join(path.read_text("utf-8") for path in sorted((tmp_path / name / "ledger").glob("*.jsonl")))])
    assert ledgers[0] == ledgers[1]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever saves anything is kept."""
    monkeypatch.setattr("multitune.models.features.choosing.saved", lambda *_: 1e9)


@pytest.mark.usefixtures("eager")
def test_a_store_that_may_not_be_written_is_told_and_the_run_goes_on_as_without(tmp_path: Path) -> None:
    table = pictures(tmp_path / "data", 60)
    (tmp_path / "taken").write_text("no folder")
    plain = multitune.train(over_pictures(table), run=tmp_path / "plain")
    result = multitune.train(over_pictures(table, features={"store": "auto", "folder": str(tmp_path / "taken")}), run=tmp_path / "run")
    assert "features-not-kept" in {finding.code for finding in result.findings}
    assert bits(tmp_path / "run") == bits(tmp_path / "plain")
    assert plain.ok


def test_what_is_encoded_ahead_is_there_for_the_run(tmp_path: Path) -> None:
    table = pictures(tmp_path / "data", 60)
    made = over_pictures(table, features={"store": "on", "folder": str(tmp_path / "store"), "type": "bf16"})
    ahead = multitune.encode(made)
    assert ahead.figures["features/encoded"] == 60
    assert 0 < ahead.figures["features/rounding"] < 2**-5
    result = multitune.train(made, run=tmp_path / "run")
    assert (result.figures["features/hits"], result.figures["features/encoded"]) == (60, 0)
    assert os.environ["MULTITUNE_CACHE"] not in str(ahead.paths["store"])
