"""What is encoded before it is decided whether to keep it is kept, and not encoded again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core.protocols import Sample
from multitune.models.features.contents import Contents
from multitune.models.features.filling import Features, alone, folder_name, space_key
from multitune.models.features.measuring import measured
from multitune.models.features.ways import content
from multitune.models.predictor import Forgetful
from multitune.models.replay import Seam, settle
from tests.models.features.conftest import ASKED, classifier, moving


@pytest.fixture
def family(folders: Mapping[str, Path]) -> Any:
    """A classifier that reads one vector of each of two frozen towers."""
    return classifier(folders, fuse="concat")


def encoded(family: Any, seam: Seam, rows: list[Sample]) -> dict[str, Any]:
    """Some rows, encoded ahead, by the folder of their space."""
    contents = Contents()
    given = [(content(row, ("photo",), contents.of), row, alone(family, row, "photo", Forgetful())) for row in rows if "photo" in row.parts]
    made = measured(family, seam, [(held, row, one) for held, row, one in given if one is not None], type="fp32")
    return {folder_name(space_key(family, seam, asked=ASKED)): made[1]}


def test_rows_that_were_measured_are_kept_as_they_are_and_not_encoded_again(family: Any, rows: list[Sample], tmp_path: Path) -> None:
    seams = {"photo": settle(family, moving(family, "photo", "words")).seams["photo"]}
    plain = Features.open(family, seams, root=tmp_path / "plain", asked=ASKED)[0]
    plain.fill(rows)
    first = [row for row in rows if "photo" in row.parts][:16]
    begun = encoded(family, seams["photo"], first)
    features = Features.open(family, seams, root=tmp_path / "begun", asked=ASKED)[0]
    features.begin(begun)
    seen: list[int] = []
    with family.tower["photo"].register_forward_pre_hook(lambda *given: seen.append(1)):
        features.fill(first)
    assert seen == []
    features.fill(rows)
    assert (features.counts.encoded, features.counts.hits) == (plain.counts.encoded, plain.counts.hits)
    for row in first:
        held = content(row, ("photo",), features.contents.of)
        (one,), (other,) = (space.sources[0].space.read(held).tensors for space in (features, plain))
        assert torch.equal(one, other)


def test_what_a_later_stage_will_ask_for_is_written_by_the_forward_that_passes_it_to_the_same_bits(
    family: Any, rows: list[Sample], tmp_path: Path
) -> None:
    above = settle(family, moving(family, "photo", "words")).seams["photo"]
    block = settle(family, moving(family, "photo", "words"), asked=["photo.layers.0"]).seams["photo"]
    alone, features, later = (
        Features.open(family, {"photo": seam}, root=tmp_path / folder, asked=ASKED)[0]
        for folder, seam in (("alone", block), ("store", above), ("store", block))
    )
    alone.fill(rows)
    later.counts, later.early = features.counts, features.early
    asked = rows[: len(rows) // 2]
    features.fill(rows, ahead=later.ahead(asked))
    assert 0 < len(later.sources[0].space) < len(alone.sources[0].space)
    again = Features.open(family, {"photo": block}, root=tmp_path / "store", asked=ASKED)[0]
    again.counts, again.early = features.counts, features.early
    seen: list[int] = []
    with family.tower["photo"].register_forward_pre_hook(lambda *given: seen.append(1)):
        again.fill(asked)
        assert seen == []
        assert features.counts.hits == 0
        again.fill(rows)
    assert seen
    assert features.counts.encoded == len(features.sources[0].space) + len(alone.sources[0].space)
    for row in rows:
        if "photo" in row.parts:
            held = content(row, ("photo",), features.contents.of)
            one, other = (space.sources[0].space.read(held).tensors for space in (again, alone))
            assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_a_machine_that_does_not_take_what_is_written_early_keeps_what_was_asked_for(
    family: Any, rows: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = settle(family, moving(family, "photo", "words")).seams["photo"]
    block = settle(family, moving(family, "photo", "words"), asked=["photo.layers.0"]).seams["photo"]
    features, later = (Features.open(family, {"photo": seam}, root=tmp_path / "store", asked=ASKED)[0] for seam in (above, block))
    ahead = later.ahead(rows)
    folder = later.sources[0].space.folder
    shutil.rmtree(folder)
    folder.write_text("in its place", "utf-8")
    features.fill(rows, ahead=ahead)
    assert len(features.sources[0].space) == features.counts.encoded > 0


def test_what_was_encoded_with_other_weights_is_passed_over(family: Any, rows: list[Sample], tmp_path: Path) -> None:
    seams = {"photo": settle(family, moving(family, "photo", "words")).seams["photo"]}
    begun = encoded(family, seams["photo"], rows[:4])
    family.tower["photo"].layers[1].mlp.fc1.weight.data.add_(1)
    features = Features.open(family, seams, root=tmp_path / "store", asked=ASKED)[0]
    features.begin(begun)
    seen: list[int] = []
    with family.tower["photo"].register_forward_pre_hook(lambda *given: seen.append(1)):
        features.fill(rows[:4])
    assert seen == [1]
