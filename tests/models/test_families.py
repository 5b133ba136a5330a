"""Fusion and dual encoders: what is saved comes back, what is absent has no say, what is loaded is what plain Transformers loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor

from multitune.core import catalog
from multitune.core.errors import ArtifactError, ModelError, PluginError
from multitune.core.protocols import AnswerNeed, Batch, Category, Needs, Number, Part, PartNeed, Sample, Sound
from multitune.core.randomness import generator
from multitune.data.decode import BadPart
from multitune.models import anatomy
from multitune.models.load import Weights
from multitune.models.predictor import Forgetful

Folders = Mapping[str, Path]
FUSIONS = catalog.names("fusion")
PARTS = {"photo": PartNeed("image"), "words": PartNeed("text"), "sound": PartNeed("audio")}
ANSWERS = {"label": AnswerNeed("category", ("a", "b", "c")), "size": AnswerNeed("number", mean=10.0, deviation=2.0)}


def towers(folders: Folders, names: Sequence[str] = tuple(PARTS)) -> dict[str, str]:
    kinds = {"photo": "vit", "words": "bert", "sound": "wav2vec2"}
    return {name: str(folders[kinds[name]]) for name in names}


def fusion(folders: Folders, fuse: Any = "concat", *, needs: Needs | None = None, weights: Weights | None = None, **options: Any) -> Any:
    asked = needs or Needs(PARTS, ANSWERS)
    plugin = catalog.find("family", "fusion_encoder", {"towers": towers(folders, tuple(asked.parts)), "fuse": fuse, **options})
    return plugin.build(asked, weights or Weights(seed=1))


def dual(needs: Needs, weights: Weights | None = None, **options: Any) -> Any:
    return catalog.find("family", "dual_encoder", options).build(needs, weights or Weights(seed=1))


def sample(seed: int, parts: Sequence[str] = tuple(PARTS)) -> Sample:
    random = generator("sample", seed)
    words = " ".join(random.choice(["red", "blue", "circle", "river"], size=1 + seed % 5))
    made = {
        "photo": Part("image", random.integers(0, 256, (30 + seed, 40, 3), dtype=np.uint8)),
        "words": Part("text", words),
        "sound": Part("audio", Sound(random.standard_normal(2_000 + 300 * seed).astype(np.float32) / 8, 16_000)),
        "label": Part("category", "abc"[seed % 3]),
        "size": Part("number", float(seed)),
    }
    return Sample(str(seed), {name: part for name, part in made.items() if name in parts or name in ANSWERS})


def batch(family: Any, samples: Sequence[Sample]) -> Batch:
    made: Batch = family.preparer.collate([family.preparer.prepare(one, Forgetful()) for one in samples])
    return made


def logits(family: Any, samples: Sequence[Sample], answer: str = "label") -> torch.Tensor:
    with torch.inference_mode():
        made: torch.Tensor = family(batch(family, samples)).logits[answer]
    return made


@pytest.mark.parametrize("fuse", FUSIONS)
def test_a_saved_model_opens_with_the_same_bits(folders: Folders, tmp_path: Path, fuse: str) -> None:
    family = fusion(folders, fuse)
    family.save(tmp_path)
    again = fusion(folders, fuse, weights=Weights("artifact", tmp_path, seed=99))
    samples = [sample(seed) for seed in range(4)]
    assert torch.equal(logits(family, samples), logits(again, samples))
    assert family.preparer.describe() == again.preparer.describe()


@pytest.mark.parametrize("fuse", FUSIONS)
def test_names_and_shapes_on_the_meta_device_are_those_with_weights(folders: Folders, fuse: str) -> None:
    real, meta = (fusion(folders, fuse, weights=weights) for weights in (Weights(), Weights("meta")))
    assert anatomy.find(real) == anatomy.find(meta)
    assert all(parameter.is_meta for parameter in meta.parameters())


@pytest.mark.parametrize("fuse", FUSIONS)
def test_an_absent_part_has_no_say_whatever_stands_in_its_place(folders: Folders, fuse: str) -> None:
    family = fusion(folders, fuse)
    made = batch(family, [sample(1), sample(2, ["photo", "words"])])
    other = {**made.inputs, "sound": {name: value.clone() for name, value in made.inputs["sound"].items()}}
    other["sound"]["input_values"][1] = torch.randn_like(other["sound"]["input_values"][1])
    with torch.inference_mode():
        first = family(made).logits["label"]
        second = family(Batch(made.ids, other, made.answers, made.presence)).logits["label"]
    assert torch.equal(first, second)


def test_under_late_sum_a_row_without_a_part_is_the_model_without_that_part(folders: Folders) -> None:
    family = fusion(folders, "late_sum")
    made = batch(family, [sample(1), sample(2)])
    features = family.encode(made)
    slots = family.fusion(features.parts, made.presence)
    without = sum(family.head["label"][name](slots[name].values) for name in ("photo", "words"))
    absent = logits(family, [sample(1, ["photo", "words"]), sample(2, ["photo", "words"])])
    assert torch.allclose(absent, without, atol=1e-6)


@pytest.mark.parametrize("fuse", FUSIONS)
def test_a_row_without_any_part_gives_finite_logits_and_gradients(folders: Folders, fuse: str) -> None:
    family = fusion(folders, fuse)
    family(batch(family, [sample(1, []), sample(2)])).logits["label"].sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in family.parameters() if p.grad is not None)


@pytest.mark.parametrize("fuse", FUSIONS)
def test_gradients_of_a_batch_with_absent_rows_are_the_sum_of_its_rows(folders: Folders, fuse: str) -> None:
    family = fusion(folders, fuse)
    samples = [sample(1), sample(2, ["photo"]), sample(3, ["words", "sound"])]

    def gradients(groups: Sequence[Sequence[Sample]]) -> torch.Tensor:
        family.zero_grad()
        for group in groups:
            family(batch(family, group)).logits["label"].logsumexp(-1).sum().backward()
        return torch.cat([p.grad.flatten() for p in family.parameters() if p.grad is not None])

    together, alone = gradients([samples]), gradients([[one] for one in samples])
    assert torch.allclose(together, alone, atol=1e-5 * float(together.norm()))


def test_fusions_and_heads_start_from_the_seed_and_nothing_else(folders: Folders) -> None:
    torch.default_generator.manual_seed(1)
    first = fusion(folders, "cross_attention").fusion.state_dict()
    torch.default_generator.manual_seed(2)
    again = fusion(folders, "cross_attention").fusion.state_dict()
    other = fusion(folders, "cross_attention", weights=Weights(seed=2)).fusion.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["queries"], other["queries"])


def test_predictions_are_classes_with_probabilities_and_numbers_in_the_users_units(folders: Folders) -> None:
    family = fusion(folders)
    samples = [sample(1), sample(2)]
    with torch.inference_mode():
        made = family.predict(batch(family, samples), generate={})
    label, size = made[0].answers["label"], made[0].answers["size"]
    assert isinstance(label, Category)
    assert isinstance(size, Number)
    assert sum(label.scores.values()) == pytest.approx(1)
    assert label.value == max(label.scores, key=lambda name: label.scores[name])
    assert size.value == pytest.approx(float(logits(family, samples, "size")[0]) * 2 + 10)


def test_answers_become_class_indices_and_standardised_numbers(folders: Folders) -> None:
    family = fusion(folders)
    made = batch(family, [sample(4), Sample("x", sample(1).parts | {"label": Part("category", "c")})])
    assert made.answers["label"].tolist() == [1, 2]
    assert made.answers["size"].tolist() == [-3.0, -4.5]


def test_a_class_that_the_model_does_not_have_is_refused(folders: Folders) -> None:
    family = fusion(folders)
    with pytest.raises(BadPart, match='label: "z" is no class of the training data; they are a, b, c'):
        family.preparer.prepare(Sample("x", {"label": Part("category", "z")}), Forgetful())


def test_two_parts_may_use_the_same_folder_and_are_two_towers(folders: Folders) -> None:
    needs = Needs({"left": PartNeed("image"), "right": PartNeed("image")}, {"label": ANSWERS["label"]})
    both = {"left": str(folders["vit"]), "right": str(folders["vit"])}
    family = catalog.find("family", "fusion_encoder", {"towers": both}).build(needs, Weights())
    assert family.towers["left"] is not family.towers["right"]
    assert len(anatomy.find(family).match("right")) == len(anatomy.find(family).match("left"))


@pytest.mark.parametrize(
    ("names", "answers", "found"),
    [
        (["photo", "words", "sound", "x"], ANSWERS, '"x" is no input part'),
        (["photo", "words"], ANSWERS, 'the part "sound" has no tower'),
        (["photo", "words", "sound"], {}, "nothing to answer"),
        (["photo", "words", "sound"], {"said": AnswerNeed("text")}, "cannot answer with text"),
    ],
)
def test_towers_and_answers_that_do_not_fit_are_refused(folders: Folders, names: list[str], answers: Any, found: str) -> None:
    chosen = towers(folders) | {"x": str(folders["vit"])}
    plugin = catalog.find("family", "fusion_encoder", {"towers": {name: chosen[name] for name in names}})
    with pytest.raises(ModelError, match=found):
        plugin.build(Needs(PARTS, answers), Weights())


def test_a_joint_file_that_lacks_a_tensor_is_refused(folders: Folders, tmp_path: Path) -> None:
    fusion(folders).save(tmp_path)
    state = load_file(tmp_path / "joint.safetensors")
    state.pop("head.label.bias")
    save_file(state, tmp_path / "joint.safetensors")
    with pytest.raises(ArtifactError, match=r"head\.label\.bias"):
        fusion(folders, weights=Weights("artifact", tmp_path))


def test_saving_under_adapters_writes_the_base_as_it_was(folders: Folders, tmp_path: Path) -> None:
    family = fusion(folders)
    family.save(tmp_path / "before")
    tower = family.towers["words"]
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=anatomy.linear_targets(tower)), tower)
    family.save(tmp_path / "after")
    place = Path("towers/words/model.safetensors")
    before, after = load_file(tmp_path / "before" / place), load_file(tmp_path / "after" / place)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# ----------------------------------------------------------------------------------------------------------------- dual


def test_composed_towers_give_unit_vectors_and_the_scale(folders: Folders) -> None:
    family = dual(Needs(PARTS, {}), towers=towers(folders), width=6)
    with torch.inference_mode():
        outputs = family(batch(family, [sample(1), sample(2, ["photo", "sound"])]))
    assert {name: tuple(made.shape) for name, made in outputs.embeddings.items()} == dict.fromkeys(PARTS, (2, 6))
    assert torch.allclose(outputs.embeddings["photo"].norm(dim=1), torch.ones(2))
    assert outputs.embeddings["words"][1].abs().sum() == 0
    assert float(outputs.scalars["scale"]) == pytest.approx(1 / 0.07)


def test_the_scale_is_at_most_100(folders: Folders) -> None:
    family = dual(Needs(PARTS, {}), towers=towers(folders))
    family.scale.data.fill_(9.0)
    with torch.inference_mode():
        assert float(family(batch(family, [sample(1)])).scalars["scale"]) == 100


def test_composed_towers_open_with_the_same_bits(folders: Folders, tmp_path: Path) -> None:
    family = dual(Needs(PARTS, {}), towers=towers(folders))
    family.scale.data.fill_(1.0)
    family.save(tmp_path)
    again = dual(Needs(PARTS, {}), Weights("artifact", tmp_path), towers=towers(folders))
    made = batch(family, [sample(1), sample(2)])
    first, second = family(made), again(made)
    assert all(torch.equal(first.embeddings[name], second.embeddings[name]) for name in PARTS)
    assert torch.equal(first.scalars["scale"], second.scalars["scale"])


def test_a_tower_taken_from_a_clip_is_saved_alone_and_opens_with_the_same_bits(clip: Path, tmp_path: Path) -> None:
    needs = Needs({"photo": PARTS["photo"]}, {"label": ANSWERS["label"]})
    plugin = catalog.find("family", "fusion_encoder", {"towers": {"photo": str(clip)}})
    family = plugin.build(needs, Weights(seed=1))
    family.save(tmp_path)
    again = plugin.build(needs, Weights("artifact", tmp_path))
    assert torch.equal(logits(family, [sample(1)]), logits(again, [sample(1)]))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_tower_in_half_precision_gives_nearly_the_same(folders: Folders, dtype: str) -> None:
    needs = Needs({"photo": PARTS["photo"]}, {"label": ANSWERS["label"]})
    half = {"towers": {"photo": {"pretrained": str(folders["vit"]), "dtype": dtype}}}
    made = [
        catalog.find("family", "fusion_encoder", options).build(needs, Weights())
        for options in ({"towers": {"photo": str(folders["vit"])}}, half)
    ]
    first, second = (logits(family, [sample(1)]) for family in made)
    assert second.dtype == torch.float32
    assert torch.allclose(first, second, atol=0.05)
    assert not torch.equal(first, second)


CLIP_NEEDS = Needs({"photo": PARTS["photo"], "words": PARTS["words"]}, {})


def test_a_clip_folder_embeds_as_plain_transformers_does(clip: Path) -> None:
    family = dual(CLIP_NEEDS, pretrained=str(clip))
    one = sample(3)
    processor = AutoProcessor.from_pretrained(clip)
    inputs = processor(images=one.parts["photo"].value, text=one.parts["words"].value, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(clip)(**inputs)
        outputs = family(batch(family, [one]))
    assert torch.allclose(outputs.embeddings["photo"], expected.image_embeds, atol=1e-6)
    assert torch.allclose(outputs.embeddings["words"], expected.text_embeds, atol=1e-6)
    similarity = outputs.scalars["scale"] * outputs.embeddings["words"] @ outputs.embeddings["photo"].T
    assert torch.allclose(similarity, expected.logits_per_text, atol=1e-5)


def test_a_tuned_clip_comes_back_as_a_folder_that_plain_transformers_loads(clip: Path, tmp_path: Path) -> None:
    family = dual(CLIP_NEEDS, pretrained=str(clip))
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.add_(0.01)
    family.save(tmp_path)
    plain, information = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(information.values())
    assert all(torch.equal(tensor, family.model.state_dict()[name]) for name, tensor in plain.state_dict().items())
    again = dual(CLIP_NEEDS, Weights("artifact", tmp_path), pretrained=str(clip))
    made = batch(family, [sample(1), sample(2)])
    assert torch.equal(family(made).embeddings["words"], again(made).embeddings["words"])


def test_a_clip_has_its_towers_by_part_and_its_projections_and_scale_beside_them(clip: Path) -> None:
    found = anatomy.find(dual(CLIP_NEEDS, pretrained=str(clip)))
    assert {tower.name: tower.path for tower in found.towers} == {"photo": "model.vision_model", "words": "model.text_model"}
    assert found.left == ("scale", "projection")
    assert found.match("scale") == ["scale.logit_scale"]
    assert len(found.match("projection")) == 2


def test_a_clip_without_a_tower_for_a_part_is_refused(clip: Path) -> None:
    with pytest.raises(ModelError, match='no tower for the part "sound"; it reads image, text'):
        dual(Needs(PARTS, {}), pretrained=str(clip))


def test_a_dual_encoder_takes_towers_or_a_model_not_both(clip: Path, folders: Folders) -> None:
    for options in ({}, {"towers": towers(folders), "pretrained": str(clip)}):
        with pytest.raises(PluginError, match="give either towers or pretrained"):
            catalog.find("family", "dual_encoder", options, where="model")
