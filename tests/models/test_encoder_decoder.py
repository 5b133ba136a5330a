"""Encoder-decoders as their folders have them: the loss, the writing and the saved folder are those of plain Transformers."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoProcessor, AutoTokenizer

from multitune.core.errors import ModelError
from multitune.core.protocols import Part, PartNeed, Sample, Sound
from multitune.core.recipe import make_recipe
from multitune.data.decode import BadPart
from multitune.models import anatomy, plan
from multitune.models.load import Weights
from multitune.models.predictor import Forgetful
from tests.models.encoder_decoders import (
    AUTOS,
    HEARD,
    KINDS,
    READS,
    Folders,
    batched,
    built,
    loss,
    needs,
    row,
    rows,
    write_folders,
    written,
)

Family = Any
STARTS = {"t5": [0], "bart": [2, 0], "whisper": [1, 2, 4, 7], "blip": [4]}
ENDS = {"t5": 1, "bart": 2, "whisper": 0, "blip": 3}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Small encoder-decoders in folders."""
    return write_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of encoder-decoder."""
    return request.param


@pytest.fixture(scope="module")
def family(folders: Folders, kind: str) -> Family:
    """That kind, as the family has it."""
    return built(folders[kind], needs(kind))


def source(kind: str, processor: Any, sample: Sample) -> dict[str, torch.Tensor]:
    """What plain Transformers makes of a source."""
    value = sample.parts["source"].value
    if READS[kind] == "text":
        return dict(processor(value, return_tensors="pt"))
    if READS[kind] == "audio":
        return dict(processor(value.wave, sampling_rate=value.rate, return_tensors="pt"))
    return dict(processor(images=value, return_tensors="pt", input_data_format="channels_last"))


def plain_loss(kind: str, folder: Path, sample: Sample) -> float:
    """The summed loss on the answer alone; where the model shifts its labels itself, it does so here."""
    processor = AutoProcessor.from_pretrained(folder)
    model, given = AUTOS[kind].from_pretrained(folder), source(kind, processor, sample)
    tokenizer = vars(processor).get("tokenizer", processor)
    own = tokenizer(sample.parts["said"].value, add_special_tokens=False)["input_ids"]
    answer = torch.tensor([*own, ENDS[kind]])
    whole = torch.tensor([[*STARTS[kind], *own, ENDS[kind]]])
    logits = model(**given, input_ids=whole).logits[:, :-1] if kind == "blip" else model(**given, labels=whole[:, 1:]).logits
    return functional.cross_entropy(logits[0, -len(answer) :], answer, reduction="sum").item()


def test_the_loss_is_that_of_plain_transformers_on_the_answer(family: Family, folders: Folders, kind: str) -> None:
    for sample in rows(kind)[:2]:
        expected = plain_loss(kind, folders[kind], sample)
        assert loss(family, batched(family, [sample])).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_batch_is_the_sum_of_its_rows_alone(family: Family, kind: str) -> None:
    alone = sum(loss(family, batched(family, [sample])).item() for sample in rows(kind))
    assert loss(family, batched(family, rows(kind))).item() == pytest.approx(alone, rel=1e-5)


def test_the_gradients_of_a_batch_are_the_sums_of_its_rows_alone(family: Family, kind: str) -> None:
    def gradients(batches: list[list[Sample]]) -> torch.Tensor:
        family.zero_grad()
        for samples in batches:
            loss(family, batched(family, samples)).backward()
        return torch.cat([p.grad.flatten().clone() for p in family.parameters() if p.grad is not None])

    together, alone = gradients([rows(kind)]), gradients([[sample] for sample in rows(kind)])
    family.zero_grad(set_to_none=True)
    assert (together - alone).norm() <= 1e-5 * together.norm()


def test_a_row_without_an_answer_adds_nothing(family: Family, kind: str) -> None:
    first = row(kind, 0)
    batch = batched(family, [first, row(kind, 1, None)])
    assert batch.presence["said"].tolist() == [True, False]
    assert loss(family, batch).item() == pytest.approx(loss(family, batched(family, [first])).item(), rel=1e-5)


def test_greedy_writes_what_plain_transformers_generates(family: Family, folders: Folders, kind: str) -> None:
    processor, model = AutoProcessor.from_pretrained(folders[kind]), AUTOS[kind].from_pretrained(folders[kind])
    tokenizer = vars(processor).get("tokenizer", processor)
    for sample in rows(kind)[:2]:
        given = source(kind, processor, sample)
        start = {} if kind == "blip" else {"decoder_input_ids": torch.tensor([STARTS[kind]])}
        ids = model.generate(**given, **start, max_new_tokens=8, do_sample=False)[0].tolist()
        assert written(family, [sample])[0].value == tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_what_is_written_alone_is_what_is_written_among_neighbours(family: Family, kind: str) -> None:
    for generate in ({}, {"temperature": 1.0, "top_p": 0.9, "seed": 3}):
        assert [written(family, [sample], **generate)[0] for sample in rows(kind)] == written(family, rows(kind), **generate)


def test_the_answer_is_not_looked_at_while_writing(family: Family, kind: str) -> None:
    without = [replace(sample, parts={"source": sample.parts["source"]}) for sample in rows(kind)]
    assert written(family, without) == written(family, rows(kind))


def test_joining_stored_tokens_gives_the_same_logits_and_no_gradient_to_the_encoder(family: Family, kind: str) -> None:
    batch = batched(family, rows(kind))
    with torch.no_grad():
        stored = family.encode(batch)
    logits = family.join(stored, batch).logits["said"]
    torch.testing.assert_close(logits, family(batch).logits["said"], rtol=1e-5, atol=1e-5)
    logits.sum().backward()
    silent = [name for name, _ in family.towers["encoder"].named_parameters() if "embed_tokens" not in name]
    moved = [name for name in silent if family.towers["encoder"].get_parameter(name).grad is not None]
    family.zero_grad(set_to_none=True)
    assert moved == []


def test_saved_and_opened_gives_the_same_bits(family: Family, kind: str, tmp_path: Path) -> None:
    family.save(tmp_path)
    again = built("elsewhere/gone", needs(kind), Weights("artifact", tmp_path))
    assert torch.equal(again(batched(again, rows(kind))).logits["said"], family(batched(family, rows(kind))).logits["said"])
    assert written(again, rows(kind)) == written(family, rows(kind))
    assert again.preparer.describe() == family.preparer.describe()


def test_a_step_moves_both_sides_and_plain_transformers_opens_what_is_saved(folders: Folders, kind: str, tmp_path: Path) -> None:
    family = built(folders[kind], needs(kind))
    loss(family, batched(family, rows(kind))).backward()
    still = [name for name, parameter in family.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert [name for name in still if "embed_positions" not in name] == []
    torch.optim.SGD(family.parameters(), lr=1e-2).step()
    family.save(tmp_path)
    (tmp_path / "together").mkdir()
    for path in (*(tmp_path / "model").iterdir(), *(tmp_path / "processor").iterdir()):
        shutil.copy(path, tmp_path / "together")
    expected = plain_loss(kind, tmp_path / "together", rows(kind)[0])
    assert loss(family, batched(family, rows(kind)[:1])).item() == pytest.approx(expected, rel=1e-5)


def test_the_anatomy_has_an_encoder_and_a_decoder_with_their_blocks(family: Family) -> None:
    found = anatomy.find(family)
    assert [(tower.name, len(tower.blocks)) for tower in found.towers] == [("encoder", 2), ("decoder", 2)]
    assert found.left == ()


def test_on_the_meta_device_it_has_the_same_parameters(family: Family, folders: Folders, kind: str) -> None:
    assert anatomy.find(built(folders[kind], needs(kind), Weights("meta"))).sizes == anatomy.find(family).sizes


def test_a_preparer_that_was_pickled_prepares_the_same(family: Family, kind: str) -> None:
    again = pickle.loads(pickle.dumps(family.preparer))  # noqa: S301
    made = again.collate([again.prepare(sample, Forgetful()) for sample in rows(kind)])
    expected = batched(family, rows(kind))
    assert torch.equal(made.inputs["decoder"]["input_ids"], expected.inputs["decoder"]["input_ids"])
    assert all(torch.equal(made.inputs["encoder"][name], tensor) for name, tensor in expected.inputs["encoder"].items())


@pytest.mark.slow
def test_eight_rows_are_learned_to_the_exact_answers(folders: Folders, kind: str) -> None:
    answers = ["a red star", "no", "x", "a blue ring", "a moon", "two", "a star!", "yes"]
    samples = [row(kind, place, said) for place, said in enumerate(answers)]
    family = built(folders[kind], needs(kind)).train()
    batch = batched(family, samples)
    optimizer = torch.optim.AdamW(family.parameters(), lr=4e-3)
    for _ in range(250):
        optimizer.zero_grad()
        total = loss(family, batch)
        if total.item() < 0.2:
            break
        total.backward()
        optimizer.step()
    assert [text.value for text in written(family, samples, max_new_tokens=16)] == answers


# ------------------------------------------------------------------------------------------------- words and their limits


def test_text_beside_a_picture_stands_before_the_answer(folders: Folders) -> None:
    family = built(folders["blip"], needs("blip", {"question": PartNeed("text")}))
    samples = [row("blip", 0, "a moon", question="what?"), row("blip", 1, "no", question="and this one?")]
    ids = family.preparer.prepare(samples[0], Forgetful())["given"].tolist()
    assert (ids[0], family.preparer.text(ids)) == (4, "what?")
    alone = sum(loss(family, batched(family, [sample])).item() for sample in samples)
    assert loss(family, batched(family, samples)).item() == pytest.approx(alone, rel=1e-5)
    assert [written(family, [sample])[0] for sample in samples] == written(family, samples)


def test_rows_with_prompts_of_different_lengths_are_written_in_one_call_as_alone(folders: Folders) -> None:
    family = built(folders["blip"], needs("blip", {"question": PartNeed("text")}))
    samples = [row("blip", 0, question="what?"), row("blip", 1, question="and this one?"), row("blip", 2, question="which")]
    together = family.predict(batched(family, samples), generate={"max_new_tokens": 5})
    alone = [family.predict(batched(family, [sample]), generate={"max_new_tokens": 5})[0] for sample in samples]
    assert [one.answers["said"].value for one in together] == [one.answers["said"].value for one in alone]


def test_a_prompt_wraps_what_a_text_encoder_reads(folders: Folders) -> None:
    family = built(folders["t5"], needs("t5"), prompt="translate: {source}")
    ids = family.preparer.prepare(row("t5", 0), Forgetful())["source"]["names"]["input_ids"]
    assert family.preparer.text(ids) == "translate: what is number 0?"


def test_an_answer_may_begin_with_other_tokens(folders: Folders) -> None:
    family = built(folders["whisper"], needs("whisper"), begin="<|startoftranscript|><|zh|><|translate|>")
    assert family.preparer.prepare(row("whisper", 0), Forgetful())["given"].tolist() == [1, 3, 5]


def test_a_sound_that_is_longer_than_the_window_is_said_to_be_cut(folders: Folders) -> None:
    family = built(folders["whisper"], needs("whisper"))
    cuts: dict[float, Any] = {}
    for seconds in (1.0, 1.5):
        sound = Sound(np.zeros(int(16000 * seconds), np.float32), 16000)
        cuts[seconds] = family.preparer.prepare(Sample("a", {"source": Part("audio", sound)}), Forgetful())["truncated"]
    assert cuts == {1.0: {}, 1.5: {"source": 50}}


def test_a_source_and_an_answer_that_are_too_long_are_cut_and_said(folders: Folders) -> None:
    family = built(folders["t5"], needs("t5", max_length=5))
    sample = Sample("a", {"source": Part("text", "word " * 20), "said": Part("text", "a red star")})
    prepared = family.preparer.prepare(sample, Forgetful())
    assert prepared["truncated"] == {"source": 37, "said": 6}
    assert family.preparer.text(prepared["answer"].tolist()) == "a red"


def test_an_answer_is_cut_at_the_places_that_the_decoder_has(folders: Folders) -> None:
    family = built(folders["whisper"], needs("whisper"))
    prepared = family.preparer.prepare(row("whisper", 0, "a" * 50), Forgetful())
    assert prepared["truncated"] == {"said": 51 - (40 - 4)}
    assert torch.isfinite(loss(family, batched(family, [row("whisper", 0, "a" * 50)])))


def test_special_tokens_that_users_spell_are_only_words(folders: Folders, kind: str) -> None:
    family = built(folders[kind], needs(kind))
    special = set(family.preparer.tokenizer.all_special_ids)
    for text in (*HEARD[:3], "</s>", "<pad>", "[SEP]", "<extra_id_0>"):
        parts = dict(row(kind, 0, text).parts) | ({"source": Part("text", text)} if READS[kind] == "text" else {})
        prepared = family.preparer.prepare(Sample("a", parts), Forgetful())
        assert special & {*prepared["answer"][:-1].tolist()} == set()
        if READS[kind] == "text":
            assert sum(int(token) in special for token in prepared["source"]["names"]["input_ids"]) == (1 if kind == "t5" else 2)


# -------------------------------------------------------------------------------------------------------------- bad input


def changed(folder: Path, place: Path, name: str, **values: Any) -> Path:
    """A copy of a folder with values in one of its JSON files."""
    copy = shutil.copytree(folder, place)
    path = copy / name
    path.write_text(json.dumps((json.loads(path.read_text("utf-8")) if path.exists() else {}) | values), "utf-8")
    return copy


def test_a_tokenizer_of_another_model_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["t5"], tmp_path / "x")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{place}" for place in range(9)])
    tokenizer.save_pretrained(folder)
    for mode in ("pretrained", "meta"):
        with pytest.raises(ModelError, match=r"tokenizer gives ids up to 268; the model has embeddings for 260.*saved with these weights"):
            built(folder, needs("t5"), Weights(mode))


@pytest.mark.parametrize(
    ("kind", "values"),
    [("whisper", {"feature_size": 12}), ("whisper", {"chunk_length": 2}), ("blip", {"size": {"height": 32, "width": 32}})],
)
def test_a_processor_of_another_model_is_refused(folders: Folders, tmp_path: Path, kind: str, values: dict[str, Any]) -> None:
    folder = changed(folders[kind], tmp_path / "x", "preprocessor_config.json", **values)
    for mode in ("pretrained", "meta"):
        with pytest.raises(ModelError, match=r"encoder cannot read what its processor gives.*saved with these weights"):
            built(folder, needs(kind), Weights(mode))


@pytest.mark.parametrize(
    ("kind", "files", "found"),
    [
        ("t5", "tokenizer*", "has no tokenizer.json"),
        ("whisper", "preprocessor*", "has no processor_config.json"),
        ("whisper", "tokenizer*", "tokenizer"),
        ("blip", "tokenizer*", "tokenizer"),
    ],
)
def test_a_processor_that_is_missing_is_named(folders: Folders, tmp_path: Path, kind: str, files: str, found: str) -> None:
    folder = shutil.copytree(folders[kind], tmp_path / "x")
    for path in folder.glob(files):
        path.unlink()
    with pytest.raises(ModelError, match=found):
        built(folder, needs(kind))


@pytest.mark.parametrize(("kind", "part"), [("t5", "image"), ("t5", "audio"), ("whisper", "text"), ("whisper", "image"), ("blip", "audio")])
def test_a_part_that_the_encoder_does_not_read_is_refused(folders: Folders, kind: str, part: str) -> None:
    asked = replace(needs(kind), parts={"source": PartNeed(part)})
    with pytest.raises(ModelError, match=r"model\.pretrained|data\.parts\.source"):
        built(folders[kind], asked)


def test_two_pictures_are_refused(folders: Folders) -> None:
    with pytest.raises(ModelError, match="reads one part of image; the recipe has source, other"):
        built(folders["blip"], needs("blip", {"other": PartNeed("image")}))


def test_a_row_without_its_picture_is_a_bad_part(folders: Folders) -> None:
    family = built(folders["blip"], needs("blip"))
    with pytest.raises(BadPart, match="the encoder reads nothing else"):
        family.preparer.prepare(Sample("a", {"said": Part("text", "x")}), Forgetful())


def test_more_new_tokens_than_the_decoder_has_places_for_are_refused(folders: Folders) -> None:
    with pytest.raises(ModelError, match="37 new tokens after 4 that are given; the decoder has 40 places"):
        written(built(folders["whisper"], needs("whisper")), [row("whisper", 0)], max_new_tokens=37)


def test_masking_that_the_encoder_alone_would_not_do_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = changed(folders["whisper"], tmp_path / "x", "config.json", apply_spec_augment=True)
    with pytest.raises(ModelError, match="apply_spec_augment"):
        built(folder, needs("whisper"))


def test_a_folder_that_states_no_start_token_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = changed(folders["t5"], tmp_path / "x", "generation_config.json", decoder_start_token_id=None)
    with pytest.raises(ModelError, match="states decoder_start_token_id"):
        built(folder, needs("t5"))


def test_an_encoder_decoder_as_the_language_model_of_a_composed_one_is_refused(folders: Folders) -> None:
    with pytest.raises(ModelError, match=r"is an encoder-decoder.*model\.pretrained"):
        built(folders["bart"], needs("bart"), pretrained=None, lm=str(folders["bart"]))


def test_the_plan_states_both_sides_and_where_they_come_from(folders: Folders) -> None:
    data = {"source": "chimes", "parts": {"source": "text", "said": "text"}, "answers": ["said"]}
    recipe = make_recipe({"name": "x", "task": "text_to_text", "data": data, "model": {"pretrained": str(folders["t5"])}})
    stated = {name: value.value for name, value in plan.state(recipe, needs("t5")).values.items()}
    assert stated["model.from"] == f"folder {folders['t5']}"
    assert [stated[f"model.towers.{name}.blocks"] for name in ("encoder", "decoder")] == [2, 2]
