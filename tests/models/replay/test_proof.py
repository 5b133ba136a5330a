"""A cut holds where replay changes no output and no gradient, and is refused where it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core import catalog
from multitune.core.protocols import Needs, PartNeed
from multitune.models import anatomy
from multitune.models.load import Weights
from multitune.models.predictor import Forgetful
from multitune.models.replay import Cut, Proof, blanked, candidates, encode_rows, probe_rows, probe_sample, prove, replay
from multitune.models.replay.recording import collated
from tests.models.conftest import DRAWN, SOUND_FILES, write_folder
from tests.models.replay.test_cuts import MODALITY, family

Folders = Mapping[str, Path]
PLACES = {"vit": "layers.1", "swin": "encoder.layers.1.blocks.0", "resnet": "encoder.stages.1.layers.0", "bert": "encoder.layer.1"}


def moving(made: Any, *but: str) -> list[str]:
    return [name for name in anatomy.find(made).parameters if not name.startswith(but or ("x.",))]


def proven(made: Any, cut: Cut, *but: str) -> Proof:
    return prove(made, cut, probe_rows(made), moving=moving(made, *but))


@pytest.mark.parametrize("kind", PLACES)
def test_a_frozen_tower_and_a_block_of_it_hold(folders: Folders, kind: str) -> None:
    made = family(folders[kind], MODALITY[kind], fuse="cross_attention")
    for cut in (Cut("tower.x", "x", "x"), Cut(f"tower.x.{PLACES[kind]}", f"x.{PLACES[kind]}", "x")):
        proof = proven(made, cut)
        assert proof.equal, proof.reason
        assert proof.alone == 0


def test_a_block_in_a_partly_moving_tower_holds(folders: Folders) -> None:
    made = family(folders["bert"], "text")
    proof = proven(made, Cut("tower.x.encoder.layer.1", "x.encoder.layer.1", "x"), "x.embeddings", "x.encoder.layer.0", "x.encoder.layer.1")
    assert proof.equal, proof.reason
    assert proof.seam is not None
    assert [*proof.seam.below] == ["tower.x.embeddings", "tower.x.encoder.layer.0"]
    assert proof.seam.blank == (("x", "input_ids"),)


def test_a_tower_whose_values_depend_on_padding_is_refused(folders: Folders) -> None:
    proof = proven(family(folders["wav2vec2"], "audio"), Cut("tower.x", "x", "x"))
    assert not proof.equal
    assert proof.alone == 0
    assert proof.reason.startswith("joined with longer rows")


def test_a_sound_tower_that_normalizes_each_place_alone_holds(tmp_path: Path) -> None:
    sizes = {
        "conv_dim": [8, 8],
        "conv_stride": [20, 16],
        "conv_kernel": [20, 16],
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    }
    more = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2}
    made = family(write_folder(tmp_path, "wav2vec2", DRAWN | sizes | more, SOUND_FILES), "audio")
    proof = proven(made, Cut("tower.x", "x", "x"))
    assert proof.equal, proof.reason


def test_each_tower_of_a_model_taken_whole_holds_below_its_projection(clip: Path) -> None:
    needs = Needs({"photo": PartNeed("image"), "words": PartNeed("text")}, {})
    made = catalog.find("family", "dual_encoder", {"pretrained": str(clip)}).build(needs, Weights())
    found = candidates(made, anatomy.find(made), moving(made, "photo.", "words."), row=probe_rows(made, 1)[0])
    for cut in found.highest().values():
        proof = proven(made, cut, "photo.", "words.")
        assert proof.equal, proof.reason
        assert proof.seam is not None
        assert sum(leaf.read for leaf in proof.seam.layout.leaves) == 1
    above = proven(made, Cut("model.visual_projection", "projection", "photo"), "photo.", "words.")
    assert not above.equal
    assert "projection.visual_projection.weight gets no gradient under replay" in above.reason


def test_what_is_read_past_the_cut_is_found_out(folders: Folders) -> None:
    made, seen = family(folders["bert"], "text"), list[torch.Tensor]()
    made.tower["x"].encoder.layer[0].register_forward_hook(lambda *given: seen.append(given[-1].detach()))
    made.fusion.mix.register_forward_hook(lambda *given: given[-1] + seen[-1].mean())
    proof = proven(made, Cut("tower.x.encoder.layer.1", "x.encoder.layer.1", "x"))
    assert not proof.equal
    assert proof.reason == "alone, something above reads what should only feed the cut."


def test_what_lies_below_is_not_run_and_reads_nothing(folders: Folders) -> None:
    made = family(folders["vit"], "image")
    rows = probe_rows(made)
    seam = proven(made, Cut("tower.x.layers.1", "x.layers.1", "x")).seam
    assert seam is not None
    kept, batch = encode_rows(made, seam, rows, group_rows=2), collated(made, rows)
    assert bool(blanked(batch, seam).inputs["x"]["pixel_values"].isnan().all())
    expected, ran = made(batch).logits["label"].detach(), list[str]()
    for place in range(3):
        made.tower["x"].layers[place].layernorm_before.register_forward_hook(lambda *_, place=place: ran.append(str(place)))
    with replay(made, seam, kept):
        again = made(blanked(batch, seam)).logits["label"]
    assert ran == ["2"]
    assert torch.allclose(again, expected, rtol=0, atol=1e-5 * float(expected.std()))
    made(batch)
    assert ran == ["2", "0", "1", "2"]


@pytest.mark.parametrize("kind", MODALITY)
def test_a_row_under_a_cut_does_not_change_by_a_bit_with_its_neighbours(folders: Folders, kind: str) -> None:
    made = family(folders[kind], MODALITY[kind])
    seam = proven(made, Cut("tower.x", "x", "x")).seam
    assert seam is not None
    rows = [made.preparer.prepare(probe_sample(made.needs, seed=seed), Forgetful()) for seed in range(7)]
    among = encode_rows(made, seam, rows, group_rows=4)
    alone = [encode_rows(made, seam, [row], group_rows=4)[0] for row in rows]
    for one, other in zip(among, alone, strict=True):
        assert one is not None
        assert other is not None
        assert all(torch.equal(left, right) for left, right in zip(one.tensors, other.tensors, strict=True))


def test_rows_without_the_part_have_nothing_under_the_cut(folders: Folders) -> None:
    made = family(folders["bert"], "text")
    seam = proven(made, Cut("tower.x", "x", "x")).seam
    assert seam is not None
    whole = probe_rows(made, 2)
    rows = [whole[0], dict(whole[0]) | {"parts": {}}, whole[1]]
    kept = encode_rows(made, seam, rows)
    assert [row is None for row in kept] == [False, True, False]
    batch = collated(made, rows)
    expected = made(batch).logits["label"].detach()
    with replay(made, seam, kept):
        again = made(blanked(batch, seam)).logits["label"]
    assert torch.allclose(again, expected, rtol=0, atol=1e-5 * float(expected.std()))
