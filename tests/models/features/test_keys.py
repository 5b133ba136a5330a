"""What is stored is used only where nothing that could change it has changed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core.errors import Fault, ModelError
from multitune.core.protocols import Batch, Media, Part, Sample
from multitune.data.sample import file_key, placed
from multitune.models.features import upkeep
from multitune.models.features.contents import Contents
from multitune.models.features.filling import Features
from multitune.models.features.keys import Asked
from multitune.models.features.preparing import LOST
from multitune.models.predictor import GROUP_ROWS, Forgetful
from multitune.models.replay import settle
from tests.models.features.conftest import ASKED, classifier, moving, opened, whole

Folders = Mapping[str, Path]


def filled(family: Any, names: list[str], rows: list[Sample], root: Path, asked: Asked = ASKED) -> Features:
    """A store opened and filled with these rows."""
    features = opened(family, names, root, asked)
    features.fill(rows)
    return features


@pytest.fixture
def store(folders: Folders, rows: list[Sample], tmp_path: Path) -> Path:
    """A store filled by a classifier over frozen towers."""
    family = classifier(folders)
    filled(family, moving(family, "photo", "words"), rows, tmp_path / "store")
    return tmp_path / "store"


def test_another_head_and_another_seed_of_it_use_what_is_there(folders: Folders, rows: list[Sample], store: Path) -> None:
    family = classifier(folders, width=24, dropout=0.2)
    for parameter in family.head.parameters():
        parameter.data.add_(1)
    again = filled(family, moving(family, "photo", "words"), rows, store)
    assert (again.counts.encoded, again.counts.hits) == (0, 31)


def test_other_weights_under_the_cut_are_encoded_anew_and_only_theirs(folders: Folders, rows: list[Sample], store: Path) -> None:
    family = classifier(folders)
    family.tower["photo"].layers[1].mlp.fc1.weight.data[0, 0] += 1e-6
    again = filled(family, moving(family, "photo", "words"), rows, store)
    assert (again.counts.encoded, again.counts.hits) == (20, 11)


def test_another_way_to_take_a_towers_vector_is_another_features(folders: Folders, rows: list[Sample], tmp_path: Path) -> None:
    found = []
    for pool in ("mean", "first", "mean"):
        towers = {"photo": {"pretrained": str(folders["vit"]), "pool": pool}, "words": str(folders["bert"])}
        family = classifier(folders, towers=towers, fuse="concat")
        counts = filled(family, moving(family, "photo", "words"), rows, tmp_path / "store").counts
        found.append((counts.encoded, counts.hits, counts.bytes < 31 * 1024 + 16384))
    assert found == [(31, 0, True), (20, 11, True), (0, 31, True)]


def test_a_weight_above_the_cut_is_none_of_the_key(folders: Folders, rows: list[Sample], tmp_path: Path) -> None:
    still = ("photo.embeddings", "photo.layers.0", "words")
    family = classifier(folders)
    filled(family, moving(family, *still), rows, tmp_path / "store")
    other = classifier(folders)
    other.tower["photo"].layers[1].mlp.fc1.weight.data.add_(1)
    assert filled(other, moving(other, *still), rows, tmp_path / "store").counts.encoded == 0


@pytest.mark.parametrize("asked", [Asked("fp32", 3), Asked("bf16", 1)], ids=["threads", "type"])
def test_other_threads_and_another_type_are_other_features(folders: Folders, rows: list[Sample], store: Path, asked: Asked) -> None:
    family = classifier(folders)
    assert filled(family, moving(family, "photo", "words"), rows[:3], store, asked).counts.hits == 0


def test_another_picture_size_is_another_features(folders: Folders, rows: list[Sample], tmp_path: Path) -> None:
    hits = []
    for side in (32, 32, 64):
        towers = {"photo": str(folders["swin"]), "words": str(folders["bert"])}
        family = classifier(folders, towers=towers, fuse="concat")
        family.preparer.signals["photo"].processor.size = {"height": side, "width": side}
        hits.append(filled(family, moving(family, "photo", "words"), rows, tmp_path / "store").counts.hits)
    assert hits == [0, 31, 11]


def test_a_file_that_changed_under_the_same_name_is_read_again(folders: Folders, rows: list[Sample], store: Path) -> None:
    media = rows[0].parts["photo"].value
    assert media.path is not None
    family = classifier(folders)
    features = opened(family, moving(family, "photo", "words"), store)
    preparer = features.preparer()
    before = preparer.prepare(rows[0], Forgetful())["stored"]["photo"]
    media.path.write_bytes(rows[1].parts["photo"].value.path.read_bytes())
    changed = replace(rows[0], parts=rows[0].parts | {"photo": Part("image", placed(str(media.path), None))})
    first, second = (preparer.prepare(row, Forgetful())["stored"]["photo"] for row in (changed, rows[1]))
    assert first == second != before
    assert features.contents.of(rows[2].parts["photo"]) != first


def test_a_remembered_content_that_its_file_does_not_have_is_found_by_verify(store: Path) -> None:
    assert [*upkeep.verify(store)] == []
    (remembered,) = (store / "media").glob("*.txt")
    text = remembered.read_text()
    remembered.write_text(("0" if text[0] != "0" else "1") + text[1:])
    found = [*upkeep.verify(store)]
    assert [finding.code for finding in found] == ["content-forgotten"]
    assert [*upkeep.verify(store)] == []


def test_a_hit_reads_no_file(folders: Folders, rows: list[Sample], store: Path) -> None:
    family = classifier(folders)
    features = opened(family, moving(family, "photo", "words"), store)
    preparer = features.preparer()
    for row in rows:
        if "photo" in row.parts:
            path = row.parts["photo"].value.path
            media = Media(file_key(str(path)), path=path.with_name("is not there"))
            there = replace(row, parts=row.parts | {"photo": Part("image", media)})
            assert preparer.prepare(there, Forgetful())["stored"]["photo"]


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multitune.models.features.contents.FRESH_NANOSECONDS", 3_600_000_000_000)
    (tmp_path / "new.png").write_bytes(b"x")
    contents = Contents(tmp_path / "media")
    assert contents.of(Part("image", placed(str(tmp_path / "new.png"), None)))
    contents.flush()
    assert not (tmp_path / "media").exists()


def test_a_preparer_in_another_process_reads_the_same_rows(folders: Folders, rows: list[Sample], store: Path) -> None:
    family = classifier(folders)
    preparer = opened(family, moving(family, "photo", "words"), store).preparer()
    other = pickle.loads(pickle.dumps(preparer))  # noqa: S301
    here, there = (made.collate([made.prepare(row, Forgetful()) for row in rows]) for made in (preparer, other))
    assert here.stored == there.stored
    assert all(len(one.stored["photo"]) == len(rows) for one in (here, there))
    for part, tensors in here.inputs.items():
        assert all(torch.equal(tensor.nan_to_num(), there.inputs[part][name].nan_to_num()) for name, tensor in tensors.items())


def test_a_store_of_other_numbers_is_refused_with_the_row(
    folders: Folders, rows: list[Sample], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = classifier(folders)
    monkeypatch.setattr("multitune.models.features.keys.weights_under", lambda *_, **__: "any")
    names = moving(family, "photo", "words")
    filled(family, names, rows, store)
    family.tower["photo"].layers[1].mlp.fc1.weight.data.mul_(1.5)
    again = filled(family, names, rows, store)
    with pytest.raises(Fault, match=r"photo of row row-\d+ are not what the model gives now"):
        again.check()


def test_a_row_that_only_another_size_of_group_makes_otherwise_is_not_refused(folders: Folders, rows: list[Sample], store: Path) -> None:
    family = classifier(folders)
    features = filled(family, moving(family, "photo", "words"), rows, store)
    features.sources[0].space.read(features.contents.of(rows[0].parts["photo"]))
    hook = family.tower["photo"].register_forward_hook(_otherwise_in_small_groups)
    features.check()
    hook.remove()
    assert features.counts.checked == 8


def _otherwise_in_small_groups(_: Any, given: Any, output: Any) -> Any:
    small = len(output.last_hidden_state) < GROUP_ROWS
    return type(output)(**{name: tensor * (1.01 if small else 1.0) for name, tensor in output.items()})


def test_a_row_whose_features_are_gone_ends_the_run(folders: Folders, rows: list[Sample], store: Path) -> None:
    family = classifier(folders)
    features = opened(family, moving(family, "photo", "words"), store)
    made = features.preparer()
    batch: Batch = made.collate([made.prepare(row, Forgetful()) for row in rows[:2]])
    lost = replace(batch, stored={"photo": (LOST, batch.stored["photo"][1]), "words": batch.stored["words"]})
    with features.attached(), pytest.raises(Fault, match="of the photo of row row-0 are gone"):
        family(lost)


def test_no_cut_is_given_above_a_projector_that_moves(tmp_path: Path) -> None:
    family = whole(tmp_path / "llava", "llava")
    names = [name for name in moving(family, "photo.") if not name.startswith("lm.")]
    settled = settle(family, names)
    assert names
    assert {proof.cut.tower for proof in settled.proofs} == {"photo"}
    for cut in [f"lm.{block}" for block in ("layers.0", "layers.1")]:
        with pytest.raises(ModelError, match="is no cut here: tensors that move lie under it"):
            settle(family, names, asked=[cut])


@pytest.mark.parametrize(("cut", "moves"), [("photo.layers.1", "photo.layers.0.*"), ("photo", "photo.*")])
def test_no_cut_is_given_above_what_moves(folders: Folders, cut: str, moves: str) -> None:
    family = classifier(folders)
    from multitune.models import anatomy

    names = [*anatomy.find(family).match(moves), *moving(family, "photo", "words")]
    assert cut not in {proof.cut.name for proof in settle(family, names).proofs}
    with pytest.raises(ModelError, match="is no cut here"):
        settle(family, names, asked=[cut])
