"""A compiled run: killed and resumed as uninterrupted, evaluated and kept as the same model uncompiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core import store
from multitune.deliver.artifact import open_artifact
from multitune.tuning.compiling.blocks import Compiled
from multitune.tuning.plan.compiling import FOLDER
from tests.line.lines import bits, recipe
from tests.line.test_features import over_frozen
from tests.line.test_goes_on import ended

pytestmark = [pytest.mark.line, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def _traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are traced and guarded as ever, and then run by torch's own code: nothing waits for a compiler."""
    kwdefaults: Any = Compiled.__init__.__kwdefaults__
    monkeypatch.setitem(kwdefaults, "backend", "aot_eager")


def compiled(*, dropout: float = 0.2, **train: Any) -> dict[str, Any]:
    """Pictures, and texts of any length; rows come a second time, in batches of other shapes."""
    made = recipe("embeds", train={**recipe("embeds")["train"], "compile": True, **train})
    made["data"]["source"] |= {"rows": 120}
    shape = {"depth": 2, "width": 16, "dropout": dropout}
    towers = {"image": {"name": "vit", "image_size": 32, **shape}, "image_caption": {"name": "text_transformer", **shape}}
    return made | {"model": {"name": "dual_encoder", "towers": towers}}


def losses(run: Path) -> list[float]:
    lines = (run / "events.jsonl").read_text("utf-8").splitlines()
    return [event["value"] for event in map(json.loads, lines) if event.get("name") == "train/loss"]


def test_a_compiled_run_goes_on_to_the_same_bits_and_leaves_a_plain_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled()
    result = multitune.train(made, run=tmp_path / "whole")
    assert "compile-does-not-pay" in {finding.code for finding in result.findings}
    assert "in place of" in multitune.plan(made).text, "what the run measured is known to the next plan"
    kept = json.loads((tmp_path / "whole" / "compile.json").read_text("utf-8"))
    assert all(kept[name] > 0 for name in ("eager", "compiled", "compiling"))
    ended(monkeypatch, tmp_path / "killed", made)
    multitune.train(made, run=tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")
    plain = multitune.train(compiled(compile=False), run=tmp_path / "plain")
    assert losses(tmp_path / "plain") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    assert plain.figures["steps"] == result.figures["steps"]
    assert open_artifact(tmp_path / "whole").parity() == 0.0, "what was measured, kept and is opened is the same plain model"


def costs() -> list[Path]:
    """What the machine remembers of compiling."""
    return sorted((store.cache_root() / FOLDER).glob("*.json"))


@pytest.mark.usefixtures("_traced")
def test_a_run_that_goes_on_leaves_what_was_measured_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(monkeypatch, tmp_path / "run", compiled(dropout=0.0))
    (place,) = costs()
    own = json.loads((tmp_path / "run" / "compile.json").read_text("utf-8"))
    assert (own["measures"], own["at_once"]) == (True, 2)
    newer = json.dumps(json.loads(place.read_text("utf-8")) | {"compiling": 12345.0})
    place.write_text(newer, "utf-8")
    multitune.train(compiled(dropout=0.0), run=tmp_path / "run")
    assert place.read_text("utf-8") == newer
    assert json.loads((tmp_path / "run" / "compile.json").read_text("utf-8")) == own


@pytest.mark.usefixtures("_traced")
def test_a_proof_of_a_run_over_pairs_measures_what_the_run_would(tmp_path: Path) -> None:
    assert "in place of" in multitune.plan(compiled(dropout=0.0), prove=True).text
    multitune.train(compiled(dropout=0.0), run=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "compile.json").read_text("utf-8"))["measures"] is False
    assert len(costs()) == 1


@pytest.mark.usefixtures("_traced")
def test_a_proof_says_that_it_ran_blocks_that_the_run_leaves_out_and_its_run_measures_anew(tmp_path: Path) -> None:
    made = over_frozen(tmp_path / "store")
    made["train"] |= {"compile": True}
    assert "measured with all blocks running" in multitune.plan(made, prove=True).text
    assert costs() == []
    multitune.train(made, run=tmp_path / "run")
    assert len(costs()) == 1
    assert "in place of" not in multitune.plan(made).text
