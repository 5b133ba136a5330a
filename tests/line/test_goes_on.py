"""A run goes on where it may, on another machine too; a folder of another request is left as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.errors import ModelError, RunError
from multitune.core.recipe import make_recipe, read_recipe
from multitune.tuning import plan as tuning_plan
from multitune.tuning.engines.accelerate import Accelerate
from tests.line.lines import bits, recipe

pytestmark = pytest.mark.line


def small(**train: Any) -> dict[str, Any]:
    return recipe("embeds", train={**recipe("embeds")["train"], "steps": 4} | train)


class Ended(BaseException):
    """The end of a process."""


def ended(monkeypatch: pytest.MonkeyPatch, run: Path, made: dict[str, Any]) -> None:
    """A run that ended while it evaluated for the second time."""
    fit = Accelerate.fit

    def fitted(self: Accelerate, *, watch: Any, **given: Any) -> Any:
        seen: list[Any] = []

        def watched(family: Any) -> Any:
            if seen:
                raise Ended
            seen.append(family)
            return watch(family)

        return fit(self, watch=watched, **given)

    with monkeypatch.context() as patched:
        patched.setattr(Accelerate, "fit", fitted)
        with pytest.raises(Ended):
            multitune.train(made, run=run)


def test_a_finished_run_makes_its_artifact_anew_where_it_is_gone_or_changed(tmp_path: Path) -> None:
    multitune.train(small(), run=tmp_path / "run")
    before = bits(tmp_path / "run")
    shutil.move(tmp_path / "run" / "artifact", tmp_path / "away")
    result = multitune.train(small(), run=tmp_path / "run")
    assert bits(tmp_path / "run") == before
    assert "artifact-rebuilt" in {finding.code for finding in result.findings}
    weights = tmp_path / "run" / "artifact" / "joint.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    multitune.train(small(), run=tmp_path / "run")
    assert bits(tmp_path / "run") == before
    drawn = multitune.inspect(str(tmp_path / "run"))
    assert {"image/image/blocks", "image_caption/text/blocks"} <= set(drawn.figures)
    assert drawn.text == multitune.inspect(str(tmp_path / "run" / "artifact")).text
    assert "this run was finished before" in multitune.train(small(), run=tmp_path / "run").text


def test_a_plan_that_is_kept_in_a_new_run_folder_is_the_one_that_train_follows(tmp_path: Path) -> None:
    multitune.plan(small(), folder=tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "plan.json").read_text("utf-8"))["hash"]
    multitune.train(small(), run=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "plan.json").read_text("utf-8"))["hash"] == kept
    assert read_recipe(tmp_path / "run" / "recipe.yaml").request() == make_recipe(small()).request()


def test_a_plan_of_another_request_does_not_touch_a_run(tmp_path: Path) -> None:
    multitune.plan(small(), folder=tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    with pytest.raises(RunError, match=r"train\.lr"):
        multitune.plan(small(lr=5e-3), folder=tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json")} == before


@pytest.mark.slow
def test_a_run_goes_on_with_other_workers_and_checkpoints_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multitune.train(small(), run=tmp_path / "whole")
    ended(monkeypatch, tmp_path / "run", small())
    multitune.train(small(workers=1, prefetch=1, inputs_memory=0, keep=5, checkpoint_every=1), run=tmp_path / "run")
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "request.json").read_text("utf-8"))["request"]["train"]["workers"] == 1


def test_a_run_goes_on_with_its_threads_on_a_machine_with_other_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small(threads=0)
    monkeypatch.setattr(tuning_plan, "compute_threads", lambda asked: asked or 1)
    ended(monkeypatch, tmp_path / "run", made)
    monkeypatch.setattr(tuning_plan, "compute_threads", lambda asked: asked or 3)
    multitune.train(made, run=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "plan.json").read_text("utf-8"))["values"]["train.threads"]["value"] == 1


def test_a_folder_in_which_nothing_was_spent_is_taken_over_and_one_with_a_checkpoint_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = small()
    wrong["model"] = wrong["model"] | {"towers": {"image": "tiny/imagge", "image_caption": "tiny/text"}}
    with pytest.raises(ModelError):
        multitune.train(wrong, run=tmp_path / "run")
    ended(monkeypatch, tmp_path / "run", small())
    with pytest.raises(RunError, match=r"train\.lr"):
        multitune.train(small(lr=2e-3), run=tmp_path / "run")
    multitune.train(small(), run=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "request.json").read_text("utf-8"))["hash"] == make_recipe(small()).request_hash()
