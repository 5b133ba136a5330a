"""A run whose phases keep different cuts: the same bits killed and resumed, brought forward, and with the best step in an earlier phase."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.errors import RecipeError
from multitune.models.features import choosing, filling
from multitune.models.features import shards as space_shards
from multitune.models.features.upkeep import held
from multitune.models.replay import recording
from multitune.verbs.train import deciding
from tests.line.lines import bits, recipe
from tests.line.test_goes_on import ended

pytestmark = pytest.mark.line


def in_phases(folder: Path, **changes: Any) -> dict[str, Any]:
    """A classifier that is opened block by block, and whose features are kept."""
    made = recipe("classifies", strategy={"name": "progressive", "depth": 2, "starts": [2, 4], "head_rate": 10})
    made["data"]["source"] |= {"rows": 120}
    made["data"]["parts"] = {"image": "image", "pairing": "category"}
    made["model"] = {"name": "fusion_encoder", "towers": {"image": "tiny/image"}}
    return made | {"features": {"store": "on", "folder": str(folder)}} | changes


def kept(run: Path) -> str:
    return json.loads((run / "plan.json").read_text("utf-8"))["values"]["features.image.kept"]["value"]


def losses(run: Path) -> list[float]:
    lines = (run / "events.jsonl").read_text("utf-8").splitlines()
    return [event["value"] for event in map(json.loads, lines) if event.get("name") == "train/loss"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and a run that went through without a stop."""
    root = tmp_path_factory.mktemp("stages")
    multitune.train(in_phases(root / "store"), run=root / "whole")
    return root / "store", root / "whole"


def test_each_phase_keeps_the_highest_cut_under_which_nothing_moves_in_it(whole: tuple[Path, Path], tmp_path: Path) -> None:
    store, run = whole
    assert kept(run).startswith("image.pooled to step 2, image.")
    assert kept(run).endswith("to step 6")
    assert multitune.store(action="list", folder=store).figures["spaces"] == 3
    plain = in_phases(store, features={"store": "off"})
    multitune.train(plain, run=tmp_path / "plain")
    assert losses(run) == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


def test_one_forward_of_a_row_serves_the_cuts_of_all_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    reached = recording.reached

    def counted(family: Any, paths: Any, below: Any, batch: Any) -> Any:
        ran.append(len(batch))
        return reached(family, paths, below, batch)

    monkeypatch.setattr(recording, "reached", counted)
    made = in_phases(tmp_path / "store")
    made["strategy"] |= {"starts": [12, 24]}
    made["train"] |= {"steps": 36, "evaluate_every": 12, "batch_size": 8}
    made["evaluate"] |= {"baselines": False, "ablations": False}
    figures = multitune.train(made, run=tmp_path / "run").figures
    rows = figures["features/encoded"] / 3
    assert figures["features/hits"] == 0
    assert rows > 80
    groups = -(-rows // 16)
    assert len(ran) < 2.5 * groups


def at_three_times(folder: Path, *, head: int) -> dict[str, Any]:
    """A run whose picture tower's last block moves from step 12 on; its head from step `head` on, which changes no cut."""
    strategy = [{"pattern": "fusion*"}, {"pattern": "head*", "start": head}, {"pattern": "image.layers.3*", "start": 12}]
    made = in_phases(folder, strategy=strategy)
    made["train"] |= {"steps": 36, "evaluate_every": 12}
    return made


@pytest.mark.slow
def test_two_later_phases_of_the_same_cut_are_encoded_as_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "SHARD_BYTES", 1 << 19)
    one, two = (multitune.train(at_three_times(tmp_path / f"{head}", head=head), run=tmp_path / f"run-{head}") for head in (0, 24))
    assert "image.layers" in kept(tmp_path / "run-24")
    assert two.figures["features/encoded"] == one.figures["features/encoded"]
    assert two.figures["features/hits"] == 0
    ours, theirs = ({space.cut: space for space in held(tmp_path / f"{head}")} for head in (24, 0))
    assert {cut: space.rows for cut, space in ours.items()} == {cut: space.rows for cut, space in theirs.items()}
    first, other = (spaces["image.pooled"] for spaces in (ours, theirs))  # written together with what the later phases ask for
    assert (first.shards, first.bytes) == (other.shards, other.bytes)


def test_a_run_hashes_each_shard_once_however_many_phases_read_it(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    holds = space_shards.holds

    def counted(path: Path) -> bool:
        hashed.append(path)
        return holds(path)

    monkeypatch.setattr(space_shards, "holds", counted)
    multitune.train(in_phases(whole[0]), run=tmp_path / "run")
    assert sorted(hashed) == sorted(whole[0].rglob("*.safetensors"))


def test_a_run_killed_in_a_later_phase_goes_on_to_the_same_bits(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(monkeypatch, tmp_path / "run", in_phases(tmp_path / "store"))
    multitune.store(action="prune", folder=tmp_path / "store", to="0")
    multitune.train(in_phases(tmp_path / "store"), run=tmp_path / "run")
    assert bits(tmp_path / "run") == bits(whole[1])


@pytest.mark.slow
def test_a_warm_run_with_workers_gives_the_same_bits(whole: tuple[Path, Path], tmp_path: Path) -> None:
    store, run = whole
    made = in_phases(store)
    made["train"] |= {"workers": 2}
    warm = multitune.train(made, run=tmp_path / "warm")
    assert warm.figures["features/encoded"] == 0
    assert bits(tmp_path / "warm") == bits(run)


def waiting(folder: Path) -> dict[str, Any]:
    """A run whose next phase is brought forward as soon as a loss is no better by far, and whose best step may be an early one."""
    made = in_phases(folder)
    made["strategy"] |= {"starts": [8, 16]}
    patient = {"metric": "valid/loss", "patience": 1, "min_delta": 10.0}
    made["train"] |= {"steps": 24, "plateau": patient, "early_stop": patient | {"patience": 4}}
    return made


@pytest.mark.slow
def test_a_phase_that_is_brought_forward_brings_its_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multitune.train(waiting(tmp_path / "store"), run=tmp_path / "whole")
    assert kept(tmp_path / "whole").startswith("image.pooled to step 8, ")
    assert multitune.store(action="list", folder=tmp_path / "store").figures["spaces"] == 3
    ended(monkeypatch, tmp_path / "run", waiting(tmp_path / "other"))
    multitune.train(waiting(tmp_path / "other"), run=tmp_path / "run")
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")


def test_what_moved_and_is_still_again_is_kept_as_it_has_become(tmp_path: Path) -> None:
    strategy = [{"pattern": "fusion*"}, {"pattern": "head*"}, {"pattern": "image*", "stop": 3}]
    multitune.train(in_phases(tmp_path / "store", strategy=strategy), run=tmp_path / "run")
    assert kept(tmp_path / "run") == "none to step 3, image.pooled to step 6"
    multitune.train(in_phases(tmp_path / "store", strategy=strategy, features={"store": "off"}), run=tmp_path / "plain")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    as_it_was = multitune.encode(in_phases(tmp_path / "store", strategy=strategy[:2]))
    assert as_it_was.figures["features/hits"] == 0


@pytest.mark.slow
def test_with_averages_of_weights_nothing_that_moves_at_any_time_lies_under_a_cut(tmp_path: Path) -> None:
    made = in_phases(tmp_path / "store", average={"ema": {"decay": 0.5}}, features={"store": "auto"})
    made["strategy"] |= {"starts": [2, 4]}
    multitune.train(made, run=tmp_path / "run")
    cuts = json.loads((tmp_path / "run" / "cuts.json").read_text("utf-8"))["cuts"]
    assert len(cuts) == 1
    assert not cuts[0].startswith("image.pooled:")


@pytest.mark.parametrize(
    ("features", "found"),
    [
        ({"cuts": {"image": "image.layers.99"}}, r"features.cuts.image: \"image.layers.99\" is no block of it"),
        ({"cuts": {"picture": "image"}}, r"features.cuts.picture: \"picture\" is no tower"),
        ({"store": "on"}, "features.store: on, but nothing is frozen"),
    ],
)
def test_what_cannot_be_kept_as_asked_is_an_error_before_anything_is_spent(tmp_path: Path, features: dict[str, Any], found: str) -> None:
    made = in_phases(tmp_path / "store", strategy="full", features=features)
    with pytest.raises(RecipeError, match=found):
        multitune.train(made, run=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("strategy", "cut", "found"),
    [
        (
            {"name": "partial", "blocks": 1},
            "image",
            r"image cannot be kept: \d+ tensors inside move\. The highest .* is image\.",
        ),
        ("full", "image", r"image cannot be kept: all of it moves\. Nothing of it is still: leave the cut out\."),
    ],
)
def test_a_cut_above_what_moves_is_refused_by_the_plan(tmp_path: Path, strategy: Any, cut: str, found: str) -> None:
    with pytest.raises(RecipeError, match=rf"features\.cuts\.image: {found}"):
        multitune.plan(in_phases(tmp_path / "store", strategy=strategy, features={"cuts": {"image": cut}}))


def test_features_that_are_off_stand_in_the_plan_where_the_recipe_says_so(tmp_path: Path) -> None:
    said = multitune.plan(in_phases(tmp_path / "store", features={"store": "off"})).text
    assert re.search(r"store +off +\[recipe\]", said)


@pytest.mark.slow
def test_a_named_cut_above_what_moves_is_refused_and_one_below_is_kept(tmp_path: Path) -> None:
    blocks = {"name": "partial", "blocks": 1}
    with pytest.raises(multitune.core.errors.UserError, match=r"features.cuts"):
        multitune.train(in_phases(tmp_path / "store", strategy=blocks, features={"cuts": {"image": "image"}}), run=tmp_path / "above")
    made = in_phases(tmp_path / "store", strategy=blocks)
    multitune.train(made, run=tmp_path / "highest")
    highest = kept(tmp_path / "highest")
    known = json.loads((tmp_path / "highest" / "cuts.json").read_text("utf-8"))["cuts"]
    assert known[0].startswith(highest)
    assert highest != "image"


def test_the_cuts_of_all_phases_share_one_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "saved", lambda *_: 1e9)
    made: list[choosing.Choice] = []

    def choose(*told: Any, **given: Any) -> choosing.Choice:
        made.append(plain(*told, **given))
        return made[-1]

    plain = choosing.choose
    monkeypatch.setattr(choosing, "choose", choose)
    asked = in_phases(tmp_path / "store", features={"store": "auto", "folder": str(tmp_path / "store")})
    asked["strategy"] |= {"starts": [12, 24]}
    asked["train"] |= {"steps": 36, "evaluate_every": 12, "batch_size": 8}
    multitune.train(asked, run=tmp_path / "all")
    assert [choice.kept for choice in made] == [True, True, True]
    sizes = [choice.cost.bytes * choice.asked.rows for choice in made]
    monkeypatch.setattr(deciding, "_free", lambda _: (sizes[0] + sizes[1] + sizes[2] / 2) / choosing.SPARE)
    made.clear()
    multitune.train(asked, run=tmp_path / "two")
    assert [choice.kept for choice in made] == [True, True, False]
    assert "are free" in made[-1].why


def test_a_short_run_keeps_nothing_and_says_why(tmp_path: Path) -> None:
    made = in_phases(tmp_path / "store", features={"store": "auto", "folder": str(tmp_path / "store")})
    result = multitune.train(made, run=tmp_path / "run")
    assert "features/encoded" not in result.figures
    text = (tmp_path / "run" / "plan.txt").read_text("utf-8")
    assert "not kept: it would" in text
    assert kept(tmp_path / "run") == "none"


def test_where_no_row_is_read_twice_nothing_is_proven_or_measured_and_the_plan_says_why(tmp_path: Path) -> None:
    made = in_phases(tmp_path / "store", strategy=[{"pattern": "fusion*"}, {"pattern": "head*"}])
    made["features"]["store"] = "auto"
    made["train"] |= {"steps": 2, "evaluate_every": 2}
    result = multitune.train(made, run=tmp_path / "run")
    assert "features/encoded" not in result.figures
    assert json.loads((tmp_path / "run" / "cuts.json").read_text("utf-8"))["cuts"] == []
    assert kept(tmp_path / "run") == "none"
    assert "no row is read twice" in (tmp_path / "run" / "plan.txt").read_text("utf-8")
    assert not (tmp_path / "store").exists()


def turned(folder: Path, **features: Any) -> dict[str, Any]:
    """A head over a frozen tower whose pictures are turned, two views of each."""
    made = in_phases(folder, strategy=[{"pattern": "fusion*"}, {"pattern": "head*"}])
    made["data"]["parts"]["image"] = {"modality": "image", "augment": ["dihedral"]}
    made["train"] |= {"steps": 16, "evaluate_every": 8}
    return made | {"features": {"store": "on", "folder": str(folder), "views": 2} | features}


@pytest.mark.slow
def test_fixed_views_of_an_augmented_part_are_kept_and_are_those_of_a_run_without_a_store(tmp_path: Path) -> None:
    result = multitune.train(turned(tmp_path / "store"), run=tmp_path / "run")
    rows = result.figures["features/encoded"]
    assert 120 < rows < 240
    multitune.train(turned(tmp_path / "store", store="off"), run=tmp_path / "plain")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    made = turned(tmp_path / "store")
    made["train"] |= {"workers": 2}
    warm = multitune.train(made, run=tmp_path / "warm")
    assert (warm.figures["features/hits"], warm.figures["features/encoded"]) == (rows, 0)
    assert bits(tmp_path / "warm") == bits(tmp_path / "run")


def test_an_augmented_part_without_fixed_views_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"features.store: on, but image.pooled: .* is augmented, another one in each epoch"):
        multitune.train(turned(tmp_path / "store", views=0), run=tmp_path / "run")
