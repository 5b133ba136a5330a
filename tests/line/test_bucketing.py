"""Runs whose rows go together by length: real processes, killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.line.lines import TRAIN, bits, recipe
from tests.line.test_stops import finished, started, wait_for, written

pytestmark = [pytest.mark.line, pytest.mark.slow]
BY_TOKENS = {name: value for name, value in TRAIN.items() if name != "batch_size"} | {"batch_tokens": 320}


@pytest.mark.parametrize("train", [TRAIN | {"bucket": {"window": 3}}, BY_TOKENS], ids=["rows", "tokens"])
def test_killed_and_resumed_is_uninterrupted(train: dict[str, Any], tmp_path: Path) -> None:
    parts = {"parts": {"image_caption": "text", "shape": "category"}, "answers": ["shape"]}
    changes = {"data": recipe("classifies")["data"] | parts, "model": {"towers": {"image_caption": "tiny/text"}}, "strategy": "full"}
    path = written(tmp_path, "classifies", train=train, **changes)
    finished(path, tmp_path / "whole")
    process = started(path, tmp_path / "killed")
    wait_for(tmp_path / "killed" / "checkpoints" / "step-000002", process)
    process.kill()
    process.communicate()
    finished(path, tmp_path / "killed")
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")
    events = [json.loads(line) for line in (tmp_path / "whole" / "events.jsonl").read_text("utf-8").splitlines()[1:]]
    assert all(0 <= event["value"] < 1 for event in events if event["name"] == "train/padding/image_caption")
    assert any(event["name"] == "train/padding/image_caption" for event in events)
