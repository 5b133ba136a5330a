"""What was inserted into a tower comes back with its artifact to the same bits; bottlenecks cannot be added into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModel

from multitune.core.errors import ArtifactError
from multitune.core.protocols import Sample
from multitune.deliver import golden
from multitune.deliver.artifact import open_artifact
from tests.deliver.making import Made, classifier, make

pytestmark = pytest.mark.line
BOTTLENECKS = [{"pattern": "image", "insert": {"name": "bottleneck", "size": 4, "activation": "relu"}}, {"pattern": "head.*"}]
DORA = [{"pattern": "image", "insert": {"name": "lora", "rank": 4, "dora": True, "rslora": True, "layers": ["*q_proj", "fc2"]}}]


@pytest.fixture(scope="module")
def bottlenecks(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("bottlenecks"), *classifier(), BOTTLENECKS)


def inputs(made: Made) -> list[Sample]:
    return [Sample(one.id, {name: one.parts[name] for name in made.artifact.needs.parts}) for one in made.samples]


def distances(made: Made, **options: Any) -> list[float]:
    said = open_artifact(made.artifact.folder, **options).predictor().predict(inputs(made))
    return [golden.distance(now, before) for now, before in zip(said, made.said, strict=True)]


def test_bottlenecks_come_back_to_the_same_bits(bottlenecks: Made) -> None:
    assert distances(bottlenecks) == [0.0, 0.0, 0.0]
    assert open_artifact(bottlenecks.artifact.folder).parity() == 0.0


def test_a_tower_under_bottlenecks_is_saved_as_it_was_and_opens_in_plain_transformers(bottlenecks: Made) -> None:
    folder = bottlenecks.artifact.folder / "towers" / "image"
    assert not any("inserted" in name for name in load_file(folder / "model.safetensors"))
    assert not any("inserted" in name for name in AutoModel.from_pretrained(folder).state_dict())


def test_bottlenecks_cannot_be_added_into_the_weights_and_say_so(bottlenecks: Made) -> None:
    with pytest.raises(ArtifactError, match="cannot be added into the weights"):
        _ = open_artifact(bottlenecks.artifact.folder, merge=True).family


def test_bottlenecks_of_another_size_are_refused(bottlenecks: Made, tmp_path: Path) -> None:
    from multitune.deliver.adapters import load_adapters, save_adapters
    from multitune.models import anatomy
    from multitune.models.load import Weights
    from multitune.models.plan import build_family
    from multitune.tuning import scope as scopes

    recipe, needs = classifier()
    family: Any = build_family(recipe, needs, Weights(seed=1))
    scope = scopes.apply(BOTTLENECKS, anatomy.find(family), family, total_steps=1, seed=1)
    save_adapters(family, tmp_path, scope.adapters)
    told = tmp_path / "adapters" / "image" / "insert.json"
    told.write_text(told.read_text("utf-8").replace('"size": 4', '"size": 5'), "utf-8")
    with pytest.raises(ArtifactError, match="does not fit its tower"):
        load_adapters(build_family(recipe, needs, Weights(seed=1)), tmp_path, merge=False)


def test_dora_comes_back_to_the_same_bits_and_equals_its_merged_form(tmp_path: Path) -> None:
    made = make(tmp_path, *classifier(), DORA)
    assert distances(made) == [0.0, 0.0, 0.0]
    assert max(distances(made, merge=True)) < 1e-5
