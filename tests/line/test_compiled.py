"""A compiled run: killed and resumed as uninterrupted, evaluated and kept as the same model uncompiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.deliver.artifact import open_artifact
from tests.line.lines import bits, recipe
from tests.line.test_goes_on import ended

pytestmark = [pytest.mark.line, pytest.mark.slow]


def compiled(**train: Any) -> dict[str, Any]:
    """Pictures, and texts of any length, with dropout; rows come a second time, in batches of other shapes."""
    made = recipe("embeds", train={**recipe("embeds")["train"], "compile": True, **train})
    made["data"]["source"] |= {"rows": 120}
    shape = {"depth": 2, "width": 16, "dropout": 0.2}
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
