"""A stored row is the row: the same outputs and the same gradient of every tensor that moves, in every shape, at towers and at blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multitune.core import catalog
from multitune.core.protocols import Sample
from multitune.data.bucketing.lengths import tightened
from multitune.models import anatomy
from multitune.models.features.filling import Features, FillingPredictor
from multitune.models.predictor import Forgetful, Predictor, plain
from multitune.models.replay import blanked, encode_rows, replay
from multitune.models.replay.proof import Run, run
from tests.models import encoder_decoders
from tests.models.features.conftest import (
    SIGHTED,
    asking,
    classifier,
    clip_embedder,
    embedder,
    moving,
    opened,
    speaker,
    two_sided,
    whole,
    without,
)

CASES = {
    "a classifier over frozen towers": ("classifier", ("photo", "words")),
    "a classifier that reads one vector a tower": ("sums", ("photo", "words")),
    "a classifier whose upper blocks move": ("classifier", ("photo.embeddings", "photo.layers.0", "photo.layers.1", "words")),
    "a classifier of which one tower moves": ("classifier", ("photo",)),
    "an embedder over frozen towers": ("embedder", ("photo", "words")),
    "an embedder whose upper blocks move": ("embedder", ("photo", "words.embeddings", "words.encoder.layer.0")),
    "a model taken whole below its projections": ("clip", ("photo", "words")),
    "a speaker over a frozen picture tower": ("speaker", ("photo",)),
    "a speaker whose picture tower's upper block moves": ("speaker", ("photo.embeddings", "photo.layers.0")),
    "a model that joins pictures and text, below its projector": ("llava", ("photo.",)),
    "a model of pictures in tiles": ("smolvlm", ("photo.",)),
    "a model of pictures as large as they are": ("qwen", ("photo.",)),
    "a model that hears": ("whisper", ("encoder.",)),
}
MORE = {
    "a model of several pictures a row": ("llava two", ("model.model.vision_tower.",)),
    "a model of several pictures in tiles": ("smolvlm two", ("model.model.vision_model.",)),
    "a joined model whose picture tower's upper block moves": ("llava", ("photo.embeddings", "photo.pre", "photo.encoder.layers.0")),
    "a model of large pictures whose tower's upper block moves": ("qwen", ("photo.patch_embed", "photo.blocks.0")),
    "a model that hears whose upper block moves": ("whisper", ("encoder.conv", "encoder.embed", "encoder.layers.0")),
    "a model that reads": ("t5", ("encoder.", "decoder.shared")),
    "a model that reads whose upper block moves": ("bart", ("encoder.embed", "encoder.layernorm", "encoder.layers.0", "decoder.shared")),
    "a model that tells what it sees": ("blip", ("encoder.",)),
    "a model taken whole whose towers' upper blocks move": (
        "clip",
        ("photo.embeddings", "photo.pre", "photo.encoder.layers.0", "words.embeddings", "words.encoder.layers.0"),
    ),
    "a model of pictures in tiles whose tower's upper block moves": ("smolvlm", ("photo.embeddings", "photo.encoder.layers.0")),
}
FAMILIES = {"classifier": "fusion_encoder", "embedder": "dual_encoder", "clip": "dual_encoder", "speaker": "generative"}


def test_every_family_there_is_stands_among_the_cases_with_a_tower_and_with_a_block() -> None:
    towers, blocks = set[str](), set[str]()
    for shape, still in (CASES | MORE).values():
        (blocks if any("layers" in name or "blocks" in name for name in still) else towers).add(FAMILIES.get(shape, "generative"))
    assert towers == blocks == set(catalog.names("family"))


@pytest.fixture(params=[*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def case(
    request: pytest.FixtureRequest, folders: Mapping[str, Path], rows: list[Sample], tmp_path: Path
) -> tuple[Any, list[str], list[Sample]]:
    return shaped(*(CASES | MORE)[request.param], folders, rows, tmp_path)


def shaped(
    shape: str, still: Sequence[str], folders: Mapping[str, Path], rows: list[Sample], tmp_path: Path
) -> tuple[Any, list[str], list[Sample]]:
    """A family, what moves in it, and rows for it."""
    kind, *more = shape.split()
    if kind in SIGHTED:
        made = whole(tmp_path / kind, kind, *more)
        return made, moving(made, *still), asking(rows, *more)
    if kind in encoder_decoders.KINDS:
        made = two_sided(tmp_path / kind, kind)
        return made, moving(made, *still), encoder_decoders.rows(kind)
    made = {
        "classifier": lambda: classifier(folders),
        "sums": lambda: classifier(folders, fuse="late_sum"),
        "embedder": lambda: embedder(folders),
        "clip": lambda: clip_embedder(tmp_path / "clip"),
        "speaker": lambda: speaker(tmp_path / "speaking"),
    }[shape]()
    if shape == "speaker":
        rows = [without(row, "label") for row in rows if {"words", "photo"} <= set(row.parts)]
    return made, moving(made, *still), rows


def gradients(family: Any, batch: Any, names: Sequence[str]) -> Run:
    for parameter in family.parameters():
        parameter.requires_grad_(False)
    paths = {path: name for path, name in anatomy.find(family).names.items() if name in set(names)}
    for path in paths:
        family.get_parameter(path).requires_grad_(True)
    return run(family, batch, paths)


def on_store(features: Features, batch: Any, names: Sequence[str]) -> Run:
    with features.attached():
        return gradients(features.family, batch, names)


def prepared(preparer: Any, rows: Sequence[Sample]) -> Any:
    return preparer.collate([preparer.prepare(row, Forgetful()) for row in rows])


def same(one: Run, other: Run) -> bool:
    pairs = [(one.outputs, other.outputs), (one.gradients, other.gradients)]
    return all(left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left) for left, right in pairs)


def apart(one: Run, other: Run) -> float:
    least = float(torch.cat([tensor.flatten() for tensor in one.gradients.values()]).std())

    def distance(left: Tensor, right: Tensor) -> float:
        return float((left - right).abs().max()) / max(float(left.std()) if left.numel() > 1 else 0.0, least)

    assert one.gradients.keys() == other.gradients.keys()
    return max(distance(tensor, other.gradients[name]) for name, tensor in one.gradients.items())


def test_stored_is_unstored_in_every_gradient(case: tuple[Any, list[str], list[Sample]], tmp_path: Path) -> None:
    family, names, rows = case
    features = opened(family, names, tmp_path / "store")
    features.fill(rows)
    batch = prepared(features.preparer(), rows[:9])
    assert [*batch.stored] == [source.stand.tower for source in features.sources]
    stored = on_store(features, batch, names)
    plainly = prepared(family.preparer, rows[:9])
    assert apart(gradients(family, plainly, names), stored) < 1e-5
    for tensors in batch.inputs.values():
        assert not any(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())
    assert same(stored, unstored(features, plainly, rows[:9], names))


def test_encoding_and_joining_one_after_the_other_is_one_forward(case: tuple[Any, list[str], list[Sample]], tmp_path: Path) -> None:
    family, names, rows = case
    features = opened(family, names, tmp_path / "store")
    features.fill(rows)
    batch = prepared(features.preparer(), rows[:9])
    with features.attached(), torch.no_grad():
        whole, apart_ = family(batch), family.join(family.encode(batch), batch)
    for one, other in zip((whole.logits, whole.embeddings), (apart_.logits, apart_.embeddings), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) and bool(one[name].isfinite().all()) for name in one)


def unstored(features: Features, batch: Any, rows: Sequence[Sample], names: Sequence[str]) -> Run:
    """The same groups, and nothing written down."""
    family = features.family
    from contextlib import ExitStack

    with ExitStack() as stack:
        for source in features.sources:
            alone = [features.prepared(row, source, Forgetful()) if source.stand.asked(row) else None for row in rows]
            there = iter(encode_rows(family, source.seam, [row for row in alone if row is not None]))
            stack.enter_context(replay(family, source.seam, [None if row is None else next(there) for row in alone]))
            batch = blanked(batch, source.seam)
        return gradients(family, batch, names)


def test_a_second_opening_reads_the_same_bits_and_encodes_nothing(case: tuple[Any, list[str], list[Sample]], tmp_path: Path) -> None:
    family, names, rows = case
    first = opened(family, names, tmp_path / "store")
    first.fill(rows)
    before = on_store(first, prepared(first.preparer(), rows[:9]), names)
    again = opened(family, names, tmp_path / "store")
    again.fill(rows)
    again.check()
    assert again.counts.encoded == 0
    assert again.counts.hits == first.counts.encoded > 0
    assert again.counts.checked > 0
    assert same(before, on_store(again, prepared(again.preparer(), rows[:9]), names))


def test_predictions_are_the_bits_of_those_without_a_store(case: tuple[Any, list[str], list[Sample]], tmp_path: Path) -> None:
    family, names, rows = case
    asked = [replace(row, parts={name: part for name, part in row.parts.items() if name in family.needs.parts}) for row in rows]
    generate = {"max_new_tokens": 4} if any(need.modality == "text" for need in family.needs.answers.values()) else {}
    plainly = Predictor(family, generate=generate).predict(asked)
    features = opened(family, names, tmp_path / "store")
    stored = FillingPredictor(features, generate=generate).predict(asked)
    assert [plain(one) for one in stored] == [plain(one) for one in plainly]
    assert features.counts.encoded > 0


PADDED = {
    "an embedder whose texts move": ("embedder", ("photo",)),
    "a classifier whose pictures move": ("classifier", ("words",)),
    "a speaker over a frozen picture tower": ("speaker", ("photo",)),
    "a model that joins pictures and text": ("llava", ("photo.",)),
    "a model that reads": ("t5", ("encoder.", "decoder.shared")),
}


@pytest.fixture(params=PADDED)
def padded(
    request: pytest.FixtureRequest, folders: Mapping[str, Path], rows: list[Sample], tmp_path: Path
) -> tuple[Any, list[str], list[Sample]]:
    return shaped(*PADDED[request.param], folders, rows, tmp_path)


def test_what_is_not_stored_is_padded_to_the_longest_row_as_it_is_without_a_store(
    padded: tuple[Any, list[str], list[Sample]], tmp_path: Path
) -> None:
    family, names, rows = padded
    features = opened(family, names, tmp_path / "store")
    features.fill(rows)
    stored = {source.stand.inputs for source in features.sources}
    known = features.preparer()
    loose, tight, plainly = (prepared(one, rows[:9]) for one in (known, tightened(known), tightened(family.preparer)))
    for part, tensors in tight.inputs.items():
        same_as = loose if part in stored and part != "joined" else plainly
        assert {name: tensor.shape for name, tensor in tensors.items()} == {name: one.shape for name, one in same_as.inputs[part].items()}
    assert tight.stored == loose.stored
    assert apart(gradients(family, plainly, names), on_store(features, tight, names)) < 1e-5
