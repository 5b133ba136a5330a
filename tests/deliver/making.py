"""Small models of all three shapes, saved as artifacts, with samples whose media are real files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from multitune.core.plan import Plan
from multitune.core.protocols import AnswerNeed, Needs, PartNeed, Prediction, Sample
from multitune.core.recipe import Recipe, TuningRow, make_recipe
from multitune.data.decode import modality
from multitune.data.sample import sample
from multitune.deliver.artifact import Artifact, save
from multitune.models import anatomy
from multitune.models.load import Weights
from multitune.models.plan import build_family
from multitune.models.predictor import Predictor
from multitune.tuning import scope as scopes

IMAGE = {"pretrained": "tiny/image", "weights": "random"}
TEXT = {"pretrained": "tiny/text", "weights": "random"}
AUDIO = {"pretrained": "tiny/audio", "weights": "random"}
LORA = [{"pattern": "image.*", "insert": {"name": "lora", "rank": 4}}, {"pattern": "head.*"}]


def recipe_of(
    task: str, parts: Mapping[str, str], answers: list[str], model: Mapping[str, Any], generate: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe whose rows lie in no file: only what an artifact needs of it."""
    data = {"source": {"name": "rows", "rows": {"memory": "none"}}, "parts": dict(parts), "answers": answers}
    return make_recipe({"name": "small", "task": task, "data": data, "model": dict(model), "evaluate": {"generate": dict(generate or {})}})


def classifier() -> tuple[Recipe, Needs]:
    """A picture and a caption to a class."""
    parts = {"image": "image", "caption": "text", "label": "category"}
    recipe = recipe_of("classification", parts, ["label"], {"name": "fusion_encoder", "towers": {"image": IMAGE, "caption": TEXT}})
    needs = Needs(
        {"image": PartNeed("image"), "caption": PartNeed("text")}, {"label": AnswerNeed("category", labels=("a", "b"), counts=(3, 1))}
    )
    return recipe, needs


def embedder() -> tuple[Recipe, Needs]:
    """Pictures and sounds in one space."""
    model = {"name": "dual_encoder", "towers": {"image": IMAGE, "audio": AUDIO}, "width": 16}
    return recipe_of("retrieval", {"image": "image", "audio": "audio"}, [], model), Needs(
        {"image": PartNeed("image"), "audio": PartNeed("audio")}, {}
    )


def speaker() -> tuple[Recipe, Needs]:
    """A picture to words."""
    model = {"name": "generative", "towers": {"image": IMAGE}, "connector": "linear", "lm": "tiny/lm"}
    recipe = recipe_of("captioning", {"image": "image", "caption": "text"}, ["caption"], model, generate={"max_new_tokens": 4})
    return recipe, Needs({"image": PartNeed("image")}, {"caption": AnswerNeed("text")})


def write_media(folder: Path, number: int) -> dict[str, Path]:
    """One picture and one sound as files."""
    written: dict[str, Path] = {}
    for name in ("image", "audio"):
        kind: Any = modality(name)
        suffix, data = kind.encode(kind.synthesize(number))
        written[name] = folder / f"{number}{suffix}"
        written[name].write_bytes(data)
    return written


def samples_in(folder: Path, count: int) -> list[Sample]:
    """Samples of a picture, a sound, a caption and a class."""
    parts = {"image": "image", "audio": "audio", "caption": "text", "label": "category"}
    plain = [{"caption": f"picture {number}", "label": "ab"[number % 2]} for number in range(count)]
    return [sample({**write_media(folder, number), **row}, parts, id=f"row {number}") for number, row in enumerate(plain)]


class SampleList(list[Sample]):
    """Samples as an evaluator takes them."""

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        return [one.id for one in self]

    def sample(self, index: int) -> Sample:
        """One of them."""
        return self[index]

    def column(self, part: str) -> list[str | None]:
        """A text column of each."""
        return [one.columns.get(part) for one in self]


@dataclass(frozen=True)
class Made:
    """An artifact, and what the model that it was saved from says to its samples."""

    artifact: Artifact
    samples: list[Sample]
    said: list[Prediction]


def make(folder: Path, recipe: Recipe, needs: Needs, rows: list[dict[str, Any]]) -> Made:
    """Build a family, move what `rows` of the tuning table name by a little noise, save it."""
    family: Any = build_family(recipe, needs, Weights(seed=1))
    scope = scopes.apply([TuningRow.model_validate(row) for row in rows], anatomy.find(family), family, total_steps=1, seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for entry in scope.entries:
            entry.parameter.add_(0.05 * torch.randn_like(entry.parameter))
    media = folder / "media"
    media.mkdir(parents=True)
    samples = samples_in(media, 3)
    said = Predictor(family, generate=recipe.evaluate.generate).predict(
        [Sample(one.id, {name: one.parts[name] for name in needs.parts}) for one in samples]
    )
    plan = Plan(recipe.name, recipe.request(), {})
    figures = {"test/accuracy": 0.5, "test/accuracy/low": 0.4, "test/accuracy/high": 0.6}
    artifact = save(family, folder=folder / "artifact", plan=plan, needs=needs, scope=scope, golden=samples, figures=figures)
    return Made(artifact, samples, said)
