"""Weights as files hold them: halves, shards, tied tensors, heads that are there or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageClassification

from multitune.core.errors import ModelError
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.core.recipe import make_recipe
from multitune.models import plan
from multitune.models.encoders import save_pretrained
from multitune.models.load import DTYPES, LoadedModel, TowerSpec, Weights, load_model, load_outline, load_tower
from tests.models.conftest import VIT_FILES, WORDS, tokenizer

Folders = Mapping[str, Path]
SPEAKING = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": len(WORDS)}
NEEDS = Needs({"image": PartNeed("image")}, {"label": AnswerNeed("category", ("a", "b"))})


def stored_as(folder: Path, to: Path, stored: str, shard: str) -> Path:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModel.from_pretrained(folder, dtype=DTYPES[stored]).save_pretrained(to, max_shard_size=shard)
    return to


def planned(folder: Path, **options: Any) -> plan.ModelOutline:
    data = {"source": "chimes", "parts": {"image": "image", "label": "category"}, "answers": ["label"]}
    towers = {"image": {"pretrained": str(folder), **options}}
    return plan.state(make_recipe({"name": "x", "task": "classification", "data": data, "model": {"towers": towers}}), NEEDS)


@pytest.mark.parametrize("shard", ["1GB", "8KB"])
@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
@pytest.mark.parametrize("stored", ["fp16", "bf16", "fp32"])
def test_folders_load_as_planned_whatever_they_are_stored_as(
    folders: Folders, tmp_path: Path, stored: Any, wanted: Any, shard: str
) -> None:
    folder = stored_as(folders["vit"], tmp_path / "made", stored, shard)
    assert (folder / "model.safetensors.index.json").is_file() == (shard == "8KB")
    loaded = load_tower("x", TowerSpec(pretrained=str(folder), dtype=wanted), modality="image", weights=Weights())
    expected = AutoModel.from_pretrained(folder, dtype=DTYPES[stored]).state_dict()
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {DTYPES[wanted]}
    assert all(torch.equal(tensor, expected[name].to(DTYPES[wanted])) for name, tensor in loaded.module.state_dict().items())
    assert planned(folder, dtype=wanted).values["model.towers.image.dtype"].value == f"{stored} -> {wanted}"


def test_a_shard_that_is_not_there_is_refused_by_name(folders: Folders, tmp_path: Path) -> None:
    folder = stored_as(folders["vit"], tmp_path / "made", "fp32", "8KB")
    gone = sorted(folder.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(ModelError, match=f"has no {gone.name}, which model.safetensors.index.json names"):
        planned(folder)


def speaking(folder: Path, *, base: bool = False, tied: bool = True) -> Path:
    """A small language model, or its base without the head."""
    config = AutoConfig.for_model("gpt2", **SPEAKING, tie_word_embeddings=tied)
    (AutoModel if base else AutoModelForCausalLM).from_config(config).save_pretrained(folder)
    tokenizer(eos_token="[SEP]").save_pretrained(folder)
    return folder


def spoken(folder: Path, **options: Any) -> LoadedModel:
    return load_model("model", str(folder), kind="causal_lm", weights=Weights(), **options)


def names_in(folder: Path) -> set[str]:
    with safe_open(str(folder / "model.safetensors"), framework="pt") as opened:
        return set(opened.keys())


@pytest.mark.parametrize("base", [False, True])
def test_tied_weights_are_one_tensor_after_loading_after_a_step_and_after_saving(tmp_path: Path, base: bool) -> None:
    module: Any = spoken(speaking(tmp_path / "lm", base=base)).module
    assert module.lm_head.weight is module.transformer.wte.weight
    module(input_ids=torch.tensor([[4, 5, 6]]), labels=torch.tensor([[4, 5, 6]])).loss.backward()
    torch.optim.SGD(module.parameters(), lr=0.5).step()
    assert module.lm_head.weight is module.transformer.wte.weight
    save_pretrained(module, tmp_path / "saved")
    tokenizer(eos_token="[SEP]").save_pretrained(tmp_path / "saved")
    assert "lm_head.weight" not in names_in(tmp_path / "saved")
    again: Any = spoken(tmp_path / "saved").module
    assert again.lm_head.weight is again.transformer.wte.weight
    assert torch.equal(again.lm_head.weight, module.lm_head.weight)


def test_a_base_without_the_head_that_is_asked_for_is_refused_and_may_start_one_at_random(tmp_path: Path) -> None:
    folder = speaking(tmp_path / "lm", base=True, tied=False)
    with pytest.raises(ModelError, match=r"weights are missing: lm_head.weight\. .*allow_new"):
        spoken(folder)
    assert spoken(folder, allow_new=["lm_head.*"]).report.made_new == ("lm_head.weight",)


def test_the_head_of_a_language_model_is_left_out_of_a_tower_and_named(tmp_path: Path) -> None:
    folder = speaking(tmp_path / "lm", tied=False)
    loaded = load_tower("x", TowerSpec(pretrained=str(folder)), modality="text", weights=Weights())
    assert (loaded.report.left_out, loaded.report.made_new) == (("lm_head.weight",), ())


def test_a_head_for_other_labels_is_left_out_and_the_plan_says_so(folders: Folders, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(folders["vit"], id2label={0: "cat", 1: "dog", 2: "cow"})
    AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT_FILES["preprocessor_config.json"]))
    outline = planned(tmp_path)
    (told,) = [finding for finding in outline.findings if finding.code == "weights-left-out"]
    assert told.evidence == {"names": ["classifier.bias", "classifier.weight"]}
    assert any(name.startswith("head.") for name in outline.anatomy.parameters)


def test_a_tokenizer_without_a_padding_token_works_and_is_told(folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "bare")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = load_tower("x", TowerSpec(pretrained=str(folder)), modality="text", weights=Weights())
    assert loaded.processor.pad_token_id is None
    assert [finding.code for finding in loaded.report.findings] == ["no-padding-token"]


def test_a_language_model_without_a_padding_token_speaks_and_is_told(folders: Folders, tmp_path: Path) -> None:
    folder = speaking(tmp_path / "lm")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    data = {"source": "chimes", "parts": {"image": "image", "caption": "text"}, "answers": ["caption"]}
    model = {"lm": str(folder), "towers": {"image": str(folders["vit"])}}
    recipe = make_recipe({"name": "x", "task": "captioning", "data": data, "model": model})
    needs = Needs({"image": PartNeed("image")}, {"caption": AnswerNeed("text")})
    family = plan.build_family(recipe, needs, Weights())
    rows = [family.preparer.prepare(plan.probe_sample(needs, seed=seed), plan.Forgetful()) for seed in (0, 1)]
    told = family.predict(family.preparer.collate(rows), generate={"max_new_tokens": 3})
    assert [set(prediction.answers) for prediction in told] == [{"caption"}, {"caption"}]
    assert [finding.code for finding in plan.state(recipe, needs).findings] == ["no-padding-token"]


def test_an_outline_counts_the_files_and_types_of_what_is_stored(folders: Folders, tmp_path: Path) -> None:
    folder = stored_as(folders["vit"], tmp_path / "made", "bf16", "8KB")
    stored = load_outline(str(folder)).stored
    assert (list(stored.numbers), stored.num_files) == (["bf16"], len(list(folder.glob("*.safetensors"))))
