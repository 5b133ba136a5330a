"""Towers from scratch, every one of the catalog: found, started, run, saved and loaded as any other model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from multitune.core import catalog
from multitune.core.errors import ModelError, PluginError
from multitune.core.protocols import AnswerNeed, Needs, Part, PartNeed, Sample, Sound
from multitune.core.randomness import generator
from multitune.models import anatomy, tokens
from multitune.models.encoders import save_towers
from multitune.models.load import Tower, TowerSpec, Weights, load_tower
from multitune.models.predictor import Forgetful
from multitune.models.signals import signal

SMALL: Mapping[str, Mapping[str, Any]] = {
    "vit": {"depth": 2, "width": 16, "heads": 2, "image_size": 16},
    "cnn": {"depth": 4, "width": 16, "image_size": 16},
    "conv1d": {"depth": 3, "width": 16, "filters": 12},
    "text_transformer": {"depth": 2, "width": 16, "heads": 2, "max_length": 24},
    "perceiver": {"depth": 2, "width": 16, "heads": 2, "latents": 4, "bands": 3, "image_size": 16},
}
READS = {"vit": ("image",), "cnn": ("image",), "conv1d": ("audio",), "text_transformer": ("text",), "perceiver": ("image", "audio")}
CASES = [(name, modality) for name in READS for modality in READS[name]]
EACH = pytest.mark.parametrize(("name", "modality"), CASES, ids=[f"{name}-{modality}" for name, modality in CASES])


def tower(name: str, modality: str, weights: Weights | None = None, **options: Any) -> Tower:
    spec = TowerSpec.model_validate({"name": name, **SMALL[name], **options})
    return load_tower(modality, spec, modality=modality, weights=weights or Weights(seed=3))


def value(modality: str, seed: int) -> Any:
    random = generator("value", seed)
    if modality == "image":
        return random.integers(0, 256, (20 + seed, 24, 3), dtype=np.uint8)
    if modality == "audio":
        return Sound(random.standard_normal(3_000 + 1_700 * seed).astype(np.float32) / 8, 16_000)
    return " ".join(random.choice(["a", "red", "circle", "unheard"], size=2 + 3 * seed))


def run(made: Tower, *seeds: int) -> tokens.Tokens:
    way = signal(made.modality, made.processor, limit=24)
    inputs = way.batch([way.row(value(made.modality, seed)) for seed in seeds])
    return tokens.read(made.module, inputs, pool=made.pool)


def test_every_tower_of_the_catalog_is_covered_here() -> None:
    assert set(catalog.names("tower")) == set(READS)


@EACH
def test_a_tower_reads_its_modality_and_says_where_it_comes_from(name: str, modality: str) -> None:
    made = tower(name, modality)
    assert (made.modality, made.width, made.provenance.line()) == (modality, 16, f"plug-in {name} with random weights")


@EACH
def test_a_saved_tower_is_an_ordinary_folder_that_gives_the_same_bits(name: str, modality: str, tmp_path: Path) -> None:
    made = tower(name, modality)
    save_towers({"x": made}, tmp_path)
    spec = TowerSpec(pretrained=str(tmp_path / "towers" / "x"))
    again = load_tower("x", spec, modality=modality, weights=Weights(seed=9))
    assert again.provenance.origin == "folder"
    assert not again.report.made_new
    assert torch.equal(run(made, 0, 1).values, run(again, 0, 1).values)


@EACH
def test_an_artifact_gives_back_the_tower_whatever_its_options_default_to_by_now(name: str, modality: str, tmp_path: Path) -> None:
    made = tower(name, modality)
    save_towers({modality: made}, tmp_path)
    again = load_tower(modality, TowerSpec(pretrained=name), modality=modality, weights=Weights("artifact", tmp_path))
    assert torch.equal(run(made, 1).values, run(again, 1).values)


@EACH
def test_on_the_meta_device_names_and_shapes_are_those_with_weights(name: str, modality: str) -> None:
    real, meta = tower(name, modality), tower(name, modality, Weights("meta"))
    shapes = [[(key, p.shape) for key, p in one.module.named_parameters()] for one in (real, meta)]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in meta.module.parameters())


@EACH
def test_blocks_are_found_and_run_once_each_in_order(name: str, modality: str) -> None:
    made = tower(name, modality)
    called: list[str] = []
    for path in anatomy.block_paths(made.module):
        made.module.get_submodule(path).register_forward_hook(lambda *_, path=path: called.append(path))
    run(made, 0)
    assert called == [f"layers.{place}" for place in range(SMALL[name]["depth"])]
    assert anatomy.linear_targets(made.module)


@EACH
def test_a_gradient_reaches_every_parameter(name: str, modality: str) -> None:
    made = tower(name, modality)
    assert tokens.unreached(made.module, run(made, 0, 1).pooled.square().sum()) == []


@EACH
def test_a_row_gives_alone_what_it_gives_among_longer_rows(name: str, modality: str) -> None:
    made = tower(name, modality)
    with torch.inference_mode():
        alone, among = run(made, 0), run(made, 0, 2, 1)
    assert int(alone.mask.sum()) == int(among.mask[0].sum())
    assert torch.allclose(alone.values[0][alone.mask[0]], among.values[0][among.mask[0]], atol=1e-5)
    assert torch.allclose(alone.pooled[0], among.pooled[0], atol=1e-5)


@EACH
def test_weights_follow_from_the_seed_and_the_name_alone(name: str, modality: str) -> None:
    def numbers(seed: int) -> torch.Tensor:
        return torch.cat([p.flatten() for p in tower(name, modality, Weights(seed=seed)).module.parameters()])

    torch.default_generator.manual_seed(1)
    first = numbers(3)
    torch.default_generator.manual_seed(2)
    assert torch.equal(first, numbers(3))
    assert not torch.equal(first, numbers(4))


@EACH
def test_different_inputs_are_told_apart_before_any_training(name: str, modality: str) -> None:
    with torch.inference_mode():
        pooled = run(tower(name, modality), 0, 1, 2).pooled
    assert float((pooled[0] - pooled[1]).abs().max()) > 1e-2


@EACH
def test_four_rows_are_learned_by_heart(name: str, modality: str) -> None:
    made = tower(name, modality)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        head = torch.nn.Linear(16, 4)
    optimizer = torch.optim.AdamW([*made.module.parameters(), *head.parameters()], lr=1e-2)
    losses: list[float] = []
    while len(losses) < 60 and (not losses or losses[-1] > 0.1 * losses[0]):
        loss = torch.nn.functional.cross_entropy(head(run(made, 0, 1, 2, 3).pooled), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] <= 0.1 * losses[0]


def test_the_filters_of_conv1d_begin_as_tones_that_tell_pitch() -> None:
    made = tower("conv1d", "audio", filters=16)
    seconds = torch.arange(16_000) / 16_000
    with torch.inference_mode():
        filters = made.module.get_submodule("filters")
        loudest = [int(filters(torch.sin(2 * torch.pi * hertz * seconds)[None])[0, 40].argmax()) for hertz in (60, 600, 2_000, 5_000)]
    assert loudest == sorted(set(loudest))


def test_a_part_of_another_modality_is_refused() -> None:
    with pytest.raises(ModelError, match=r"vit reads image.*needs a tower that reads audio"):
        tower("vit", "audio")
    with pytest.raises(ModelError, match="perceiver does not read text"):
        tower("perceiver", "text")


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("vit", {"width": 20, "heads": 3}, "the width 20 is no multiple of 3 heads"),
        ("vit", {"image_size": 20}, "the picture size 20 is no multiple of the patch size 8"),
        ("vit", {"depht": 3}, r'model\.towers\.x.*"depht" is not known.*Did you mean "depth"'),
        ("cnn", {"depth": 2}, "2 blocks are too few for 3 stages"),
        ("cnn", {"width": 12, "stages": 4, "depth": 4}, "cannot be halved 3 times"),
        ("conv1d", {"sampling_rate": 16_001}, "sampling_rate"),
        ("text_transformer", {"tokenizer": "tiny/image"}, '"tiny/image" has no tokenizer.json'),
        ("tiny/image", {"depth": 2}, r"tiny/image is no plug-in\. .*Only towers of models/towers take options"),
    ],
)
def test_options_that_do_not_hold_are_refused(name: str, options: dict[str, Any], found: str) -> None:
    spec = TowerSpec.model_validate({"name": name, **options})
    with pytest.raises((ModelError, PluginError), match=found):
        load_tower("x", spec, modality=("image", "audio", "text"), weights=Weights("meta"))


def test_a_tower_is_named_in_three_forms() -> None:
    named = TowerSpec.model_validate({"name": "vit", "depth": 3, "pool": "first"})
    assert named == TowerSpec.model_validate({"pretrained": "vit", "options": {"depth": 3}, "pool": "first"})
    assert TowerSpec.model_validate({"name": "vit"}) == TowerSpec.model_validate("vit")
    with pytest.raises(ValidationError, match="name"):
        TowerSpec.model_validate({"name": "vit", "pretrained": "vit"})


def test_towers_from_scratch_are_joined_by_a_family_and_come_back_from_its_artifact(tmp_path: Path) -> None:
    needs = Needs(
        {"image": PartNeed("image"), "audio": PartNeed("audio"), "caption": PartNeed("text")},
        {"label": AnswerNeed("category", ("a", "b"))},
    )
    chosen = {"image": "perceiver", "audio": "perceiver", "caption": "text_transformer"}
    options = {"towers": {part: {"name": name, **SMALL[name]} for part, name in chosen.items()}, "fuse": "unified"}
    plugin = catalog.find("family", "fusion_encoder", options)
    family = plugin.build(needs, Weights(seed=1))
    family.save(tmp_path)
    written = catalog.find("family", "fusion_encoder", plugin.options.model_dump(mode="json"))
    again = written.build(needs, Weights("artifact", tmp_path))
    assert family.preparer.describe() == again.preparer.describe()
    reads = {"image": "image", "audio": "audio", "caption": "text"}
    rows = [Sample(str(s), {part: Part(kind, value(kind, s)) for part, kind in reads.items()}) for s in range(2)]
    batch = family.preparer.collate([family.preparer.prepare(row, Forgetful()) for row in rows])
    with torch.inference_mode():
        assert torch.equal(family(batch).logits["label"], again(batch).logits["label"])
