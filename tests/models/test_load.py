"""Reading pretrained models: what is read, what is refused, and that nothing from outside leaks in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.models.encoders import save_towers
from multitune.models.load import Blueprint, TowerSpec, Weights, load_model, load_tower

Folders = Mapping[str, Path]
READS = {"vit": "image", "swin": "image", "resnet": "image", "bert": "text", "wav2vec2": "audio"}


def tower(folder: Path, *, modality: str = "image", weights: Weights | None = None, **options: object):
    spec = TowerSpec.model_validate({"pretrained": str(folder), **options})
    return load_tower("x", spec, modality=modality, weights=weights or Weights())


@pytest.fixture
def changed(folders: Folders, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the ViT folder with its weights changed by a function."""

    def change(edit: Callable[[dict[str, torch.Tensor]], None]) -> Path:
        folder = shutil.copytree(folders["vit"], tmp_path / "changed")
        state = load_file(folder / "model.safetensors")
        edit(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return change


@pytest.mark.parametrize("kind", READS)
def test_any_tower_loads_with_the_bits_of_its_file(folders: Folders, kind: str) -> None:
    loaded = tower(folders[kind], modality=READS[kind])
    expected = AutoModel.from_pretrained(folders[kind]).state_dict()
    assert loaded.module.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.module.state_dict().items())
    assert loaded.modality == READS[kind]
    assert not loaded.module.training


@pytest.mark.parametrize("kind", READS)
def test_on_the_meta_device_a_tower_has_the_same_width_names_and_shapes(folders: Folders, kind: str) -> None:
    real = tower(folders[kind], modality=READS[kind])
    meta = tower(folders[kind], modality=READS[kind], weights=Weights("meta"))
    shapes = [[(name, p.shape, p.dtype) for name, p in one.module.named_parameters()] for one in (real, meta)]
    assert shapes[0] == shapes[1]
    assert (real.width, real.report) == (meta.width, meta.report)
    assert all(parameter.is_meta for parameter in meta.module.parameters())


def test_half_precision_files_load_as_fp32_and_the_report_says_so(changed: Callable[..., Path]) -> None:
    loaded = tower(changed(lambda state: state.update({name: tensor.half() for name, tensor in state.items()})))
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}
    assert list(loaded.report.stored.numbers) == ["fp16"]
    assert loaded.report.loaded == "fp32"


def random_tower(folder: Path, seed: int) -> torch.Tensor:
    spec = TowerSpec(pretrained=str(folder), weights="random")
    module = load_tower("x", spec, modality="image", weights=Weights(seed=seed)).module
    return torch.cat([parameter.flatten() for parameter in module.parameters()])


def test_random_weights_follow_from_the_seed_and_from_nothing_else(folders: Folders) -> None:
    torch.default_generator.manual_seed(5)
    outside = torch.default_generator.get_state()
    first = random_tower(folders["vit"], 3)
    assert torch.equal(torch.default_generator.get_state(), outside)
    torch.default_generator.manual_seed(6)
    assert torch.equal(first, random_tower(folders["vit"], 3))
    assert not torch.equal(first, random_tower(folders["vit"], 4))


def test_a_missing_weight_is_refused_by_name(changed: Callable[..., Path]) -> None:
    folder = changed(lambda state: state.pop("layernorm.weight"))
    with pytest.raises(ModelError, match=r"model.towers.x: weights are missing: layernorm.weight\. .*allow_new"):
        tower(folder)


def test_a_missing_weight_that_is_allowed_is_made_new_from_the_seed(changed: Callable[..., Path]) -> None:
    folder = changed(lambda state: state.pop("embeddings.cls_token"))
    loaded = [tower(folder, allow_new=["embeddings.cls*"], weights=Weights(seed=seed)) for seed in (0, 0, 1)]
    assert loaded[0].report.made_new == ("embeddings.cls_token",)
    tokens = [one.module.state_dict()["embeddings.cls_token"] for one in loaded]
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[0], tokens[2])


def test_a_missing_weight_that_the_output_never_reads_is_reported_not_refused(changed: Callable[..., Path]) -> None:
    folder = changed(lambda state: state.pop("pooler.dense.weight"))
    assert tower(folder).report.never_used == ("pooler.dense.weight",)
    with pytest.raises(ModelError, match=r"pooler\.dense\.weight"):
        tower(folder, pool="pooler")


def test_an_extra_weight_is_refused(changed: Callable[..., Path]) -> None:
    folder = changed(lambda state: state.update(junk=torch.zeros(2)))
    with pytest.raises(ModelError, match="weights that the model does not have: junk"):
        tower(folder)


def test_a_misshapen_weight_is_refused_with_both_shapes(changed: Callable[..., Path]) -> None:
    folder = changed(lambda state: state.update({"layernorm.bias": torch.zeros(5)}))
    with pytest.raises(ModelError, match=r"layernorm.bias \(5,\) for \(16,\)"):
        tower(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(changed: Callable[..., Path], bad: float) -> None:
    folder = changed(lambda state: state["layernorm.bias"].fill_(bad))
    with pytest.raises(ModelError, match=r"layernorm.bias holds numbers that are not finite"):
        tower(folder)


def test_the_head_of_a_checkpoint_is_left_out_and_named(folders: Folders, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    config = AutoConfig.from_pretrained(folders["vit"], num_labels=3)
    AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "headed")
    shutil.copy(folders["vit"] / "preprocessor_config.json", tmp_path / "headed")
    report = tower(tmp_path / "headed").report
    assert report.left_out == ("classifier.bias", "classifier.weight")
    assert not report.made_new


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_where_safetensors_belong_is_refused_unopened(folders: Folders, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(folders["vit"], tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError, match=f"{name} is a pickle where safetensors belong"):
        tower(folder)


def test_a_model_that_needs_code_of_its_own_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["vit"], tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="needs code of its own"):
        tower(folder)
    assert not (tmp_path / "ran").exists()


def test_an_index_that_leaves_the_folder_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["vit"], tmp_path / "indexed")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(ModelError, match="may name safetensors files beside it only"):
        tower(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64])
def test_broken_safetensors_are_refused(folders: Folders, tmp_path: Path, content: bytes) -> None:
    folder = shutil.copytree(folders["vit"], tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is not a safetensors file"):
        tower(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": "unheard_of"}', '{"hidden_size": 3}'])
def test_a_config_that_does_not_hold_is_refused(folders: Folders, tmp_path: Path, content: str) -> None:
    folder = shutil.copytree(folders["vit"], tmp_path / "broken")
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError):
        tower(folder)


@pytest.mark.parametrize(("kind", "file"), [("vit", "preprocessor_config.json"), ("bert", "tokenizer.json")])
def test_a_processor_that_is_missing_is_named(folders: Folders, tmp_path: Path, kind: str, file: str) -> None:
    folder = shutil.copytree(folders[kind], tmp_path / "bare")
    for path in folder.glob("*token*" if kind == "bert" else "preprocessor*"):
        path.unlink()
    with pytest.raises(ModelError, match=rf"has no {file}"):
        tower(folder, modality=READS[kind])


def test_a_tower_that_reads_something_else_is_refused(folders: Folders) -> None:
    with pytest.raises(ModelError, match=r"reads text.*needs a tower that reads image"):
        tower(folders["bert"])


def test_of_a_model_that_joins_several_modalities_the_fitting_tower_is_taken(clip: Path) -> None:
    whole = AutoModel.from_pretrained(clip)
    for modality, inner in (("image", whole.vision_model), ("text", whole.text_model)):
        state = tower(clip, modality=modality).module.state_dict()
        assert state.keys() == inner.state_dict().keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in inner.state_dict().items())


def test_a_model_without_a_tower_that_fits_is_refused(clip: Path) -> None:
    with pytest.raises(ModelError, match="joins several modalities"):
        tower(clip, modality="audio")


@pytest.mark.parametrize(
    ("name", "found"),
    [("tiny/imgae", 'Did you mean "tiny/image"'), ("/nowhere/x", "there is no folder"), ("nowhere", "no tower, no base and no folder")],
)
def test_a_name_that_means_nothing_says_what_would(monkeypatch: pytest.MonkeyPatch, name: str, found: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=found):
        tower(Path(name))


def test_a_tower_plug_in_is_built_from_its_options_and_opened_again(folders: Folders, tmp_path: Path) -> None:
    class Options(catalog.Options):
        layers: int = 1

    def build(options: Options, reads: Sequence[str]) -> Blueprint:
        pretrained = load_tower("x", TowerSpec(pretrained=str(folders["vit"])), modality="image", weights=Weights())
        config = AutoConfig.from_pretrained(folders["vit"], num_hidden_layers=options.layers)
        return Blueprint(type(pretrained.module), config, pretrained.processor)

    catalog.register("tower", "small_vit", SimpleNamespace(Options=Options, build=build, __doc__="A small one."))
    try:
        made = tower(Path("small_vit"), options={"layers": 2})
        assert (made.provenance.line(), len(made.module.layers)) == ("plug-in small_vit with random weights", 2)
        save_towers({"x": made}, tmp_path)
        again = tower(Path("small_vit"), options={"layers": 2}, weights=Weights("artifact", tmp_path))
        assert all(torch.equal(tensor, again.module.state_dict()[name]) for name, tensor in made.module.state_dict().items())
    finally:
        catalog._registered.clear()


def test_a_whole_model_comes_with_the_processor_that_joins_its_parts(clip: Path) -> None:
    loaded = load_model("model", str(clip), kind="backbone", weights=Weights())
    assert {"image_processor", "tokenizer"} <= set(vars(loaded.processor))
