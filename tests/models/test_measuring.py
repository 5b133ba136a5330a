"""Lengths that are told before a row is prepared are those of the row prepared; grouped rows have the losses of ungrouped ones."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import ASTFeatureExtractor, SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from multitune.core import catalog
from multitune.core.protocols import Media, Part, Sample, Sound
from multitune.core.randomness import generator
from multitune.data.bucketing.outlook import look
from multitune.data.loader import Loader
from multitune.data.plan import Outline
from multitune.models.load import Weights
from multitune.models.measuring import size_of
from multitune.models.signals import AudioSignal, Signal, TextSignal, VideoSignal
from multitune.tuning.gradients import Gradients
from tests.data.plain import of_texts, outlined, texts
from tests.models import encoder_decoders, seeing
from tests.models.conftest import tokenizer
from tests.models.test_generative_whole import built as whole
from tests.models.test_generative_whole import row as picture_row
from tests.models.test_generative_whole import write_smolvlm

Folders = Mapping[str, Path]
SIZES = [(20, 30), (60, 30), (64, 64), (24, 70), None]
WORDS = ["red", "blue", "circle", "river", "two", "stars"]


def said(number: int) -> str:
    random = generator("said", number)
    return " ".join(random.choice(WORDS, size=1 + int(min(60, random.pareto(1.0) * 5))))


def sounds() -> list[tuple[Sound, bytes]]:
    made = []
    for place, rate in enumerate((16_000, 16_000, 22_050, 8_000)):
        wave = generator("heard", place).standard_normal(900 + 4_321 * place).astype(np.float32) / 8
        stream = io.BytesIO()
        soundfile.write(stream, wave, rate, format="WAV", subtype="FLOAT")
        made.append((Sound(wave, rate), stream.getvalue()))
    return made


def test_a_text_is_as_long_as_its_tokens_within_the_limit() -> None:
    way = TextSignal(tokenizer(), 24)
    values = [*map(said, range(30)), ""]
    found = way.lengths([*values, None])
    rows = [way.row(value) for value in values]
    assert list(found.real) == [*(len(row["names"]["input_ids"]) for row in rows), 0]
    assert list(found.padded) == [*(way.bucket(row)[0] for row in rows), 0]
    assert max(found.real) == 24


def test_a_text_that_was_cut_changes_nothing_of_what_its_signal_says_of_itself() -> None:
    way = TextSignal(tokenizer(), 8)
    before = way.describe()
    assert way.row("red " * 30)["cut"] > 0
    assert way.describe() == before


def test_a_wave_is_as_long_as_its_header_says_to_a_hundredth_of_a_second() -> None:
    way = AudioSignal(Wav2Vec2FeatureExtractor())
    assert way.varies
    found = way.lengths([size_of(Part("audio", Media(key="x", data=data))) for _, data in sounds()])
    rows = [way.row(sound) for sound, _ in sounds()]
    assert list(found.padded) == [way.bucket(row)[0] // 160 for row in rows]
    assert list(found.real) == [-(-len(row["names"]["input_values"]) // 160) for row in rows]


def test_features_of_sounds_are_as_long_as_expected_to_two_frames_and_windows_of_one_length_are_left_out() -> None:
    way = AudioSignal(SeamlessM4TFeatureExtractor(num_mel_bins=40))
    fixed: list[Signal] = [
        AudioSignal(WhisperFeatureExtractor(feature_size=8)),
        AudioSignal(ASTFeatureExtractor(max_length=64, num_mel_bins=32)),
    ]
    assert [getattr(one, "varies") for one in fixed] == [False, False]  # noqa: B009
    found = way.lengths([(len(sound.wave), sound.rate) for sound, _ in sounds()])
    for expected, (sound, _) in zip(found.real, sounds(), strict=True):
        assert abs(expected - way.bucket(way.row(sound))[0]) <= 2


def test_films_are_measured_where_a_tower_takes_all_of_them() -> None:
    film = np.zeros((7, 4, 4, 3), np.uint8)
    assert not VideoSignal(None, 4).varies
    assert VideoSignal(None, 0).varies
    assert list(VideoSignal(None, 0).lengths([size_of(Part("video", film)), None]).real) == [7, 0]


def test_what_cannot_be_read_has_no_length(tmp_path: Path) -> None:
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    for value in (Media(key="a", path=tmp_path / "torn.wav"), Media(key="b", path=tmp_path / "gone.wav"), Media(key="c", path=tmp_path)):
        assert size_of(Part("audio", value)) is None


@pytest.fixture(scope="module")
def fitted(folders: Folders) -> tuple[Any, Outline]:
    """A family over captions whose lengths differ much, its draws at rest, and their rows."""
    data = outlined(of_texts(texts(90, caption=said)))
    options = {"towers": {"caption": str(folders["bert"])}}
    return catalog.find("family", "fusion_encoder", options).build(data.needs, Weights()).eval(), data


def steps(fitted: tuple[Any, Outline], **train: Any) -> Iterator[list[Any]]:
    """The micro-batches of an epoch, grouped as `train` says, step by step."""
    family, data = fitted
    made = of_texts(texts(90, caption=said), train={"batch_size": 8, **train} if "batch_tokens" not in train else train)
    seen = look(made, data.examples["train"], family.preparer, over="rows")
    size, micro = made.train.batch_size, made.train.micro_batch
    loader = Loader(data.examples["train"], family.preparer, seed=0, batch_size=size, micro_batch=micro, grouping=seen.grouping)
    return ([batch for _, batch in step.micro] for step in loader.steps(0, seen.order.steps_of(0)))


def losses(fitted: tuple[Any, Outline], **train: Any) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Each row's loss, and the shape of the batch that it was in."""
    family, found = fitted[0], dict[str, tuple[float, tuple[int, ...]]]()
    for batch in (one for step in steps(fitted, **train) for one in step):
        with torch.no_grad():
            each = torch.nn.functional.cross_entropy(family(batch).logits["label"], batch.answers["label"], reduction="none")
        shape = tuple(batch.inputs["caption"]["input_ids"].shape)
        found |= {name: (float(loss), shape) for name, loss in zip(batch.ids, each, strict=True)}
    return found


@pytest.mark.parametrize("train", [{"bucket": "auto"}, {"bucket": {"window": 1}, "micro_batch": 3}, {"batch_tokens": 256}], ids=str)
def test_grouped_rows_have_the_losses_of_ungrouped_ones(fitted: tuple[Any, Outline], train: dict[str, Any]) -> None:
    plain, grouped = losses(fitted), losses(fitted, **train)
    assert plain.keys() == grouped.keys()
    assert max(abs(plain[name][0] - grouped[name][0]) for name in plain) < 1e-5
    assert sum(shape[1] for _, shape in grouped.values()) < 0.9 * sum(shape[1] for _, shape in plain.values())
    alike = [name for name in plain if plain[name][1] == grouped[name][1]]
    assert all(plain[name] == grouped[name] for name in alike)


def test_grouped_rows_are_padded_to_the_longest_and_others_in_the_steps_of_a_budget(fitted: tuple[Any, Outline]) -> None:
    def lengths(**train: Any) -> list[tuple[int, int]]:
        masks = [batch.inputs["caption"]["attention_mask"] for step in steps(fitted, **train) for batch in step]
        return [(mask.shape[1], int(mask.sum(1).max())) for mask in masks]

    assert all(padded == longest for padded, longest in lengths(bucket="auto"))
    assert any(padded % 8 for padded, _ in lengths(bucket="auto"))
    for train in ({}, {"batch_tokens": 256}):
        assert all(padded == min(-(-longest // 8) * 8, 24) for padded, longest in lengths(**train))


def test_what_the_plan_expects_of_padding_is_what_an_epoch_has(fitted: tuple[Any, Outline]) -> None:
    family, data = fitted
    for train in ({"bucket": "auto"}, {"batch_tokens": 256}):
        asked = of_texts(texts(90, caption=said), train=train if "batch_tokens" in train else {"batch_size": 8, **train})
        seen = look(asked, data.examples["train"], family.preparer, over="rows")
        masks = [batch.inputs["caption"]["attention_mask"] for step in steps(fitted, **train) for batch in step]
        real, whole = (sum(counted) for counted in zip(*((int(mask.sum()), mask.numel()) for mask in masks), strict=True))
        assert seen.padding == pytest.approx(1 - real / whole)


def test_tight_rows_hold_the_same_tokens_and_say_that_they_are_others() -> None:
    way = TextSignal(tokenizer(), 24)
    rows = [way.row(value) for value in map(said, range(9))]
    tight = replace(way, step=1)
    wide, narrow = way.batch(rows)["input_ids"], tight.batch(rows)["input_ids"]
    assert wide[:, : narrow.shape[1]].equal(narrow)
    assert list(tight.lengths([said(4)]).padded) == list(way.lengths([said(4)]).real)
    assert way.describe() != tight.describe()


def test_sorted_micro_batches_give_the_gradient_of_drawn_ones(fitted: tuple[Any, Outline]) -> None:
    family, data = fitted
    loss = catalog.find("loss", "cross_entropy", {}).build(data.needs)

    def gradients(**train: Any) -> list[torch.Tensor]:
        family.zero_grad()
        work = Gradients(family, loss, seed=0).work(0, list(enumerate(next(steps(fitted, micro_batch=3, **train)))))
        for position in work.order():
            work.backward(position)
        return [one.grad.clone() for one in family.parameters() if one.grad is not None]

    plain, grouped = gradients(), gradients(bucket={"window": 1})
    assert len(plain) == len(grouped) > 10
    scale = max(float(one.abs().max()) for one in plain)
    assert max(float((a - b).abs().max()) for a, b in zip(plain, grouped, strict=True)) < 1e-5 * scale


def test_a_preparer_tells_the_lengths_of_every_part_that_varies(fitted: tuple[Any, Outline]) -> None:
    family, data = fitted
    rows = [data.examples["train"].sample(place) for place in range(5)]
    found = family.preparer.lengths([*rows, Sample("none", {})])
    assert list(found) == ["caption"]
    assert list(found["caption"].padded[:5]) == [
        family.preparer.bucket(family.preparer.prepare(row, Remembering()))[0][1][0] for row in rows
    ]
    assert found["caption"].real[5] == 0


class Remembering:
    """A memo that makes."""

    def get(self, key: str, make: Any) -> Any:
        return make()


def test_a_model_that_speaks_tells_the_lengths_of_its_prompt_and_its_answer() -> None:
    data = outlined(of_texts(texts(8, caption=said), parts={"caption": "text", "label": "text"}))
    family: Any = catalog.find("family", "generative", {"lm": "tiny/lm"}).build(data.needs, Weights())
    rows = [data.examples["train"].sample(place) for place in range(8)]
    found, made = family.preparer.lengths(rows), [family.preparer.prepare(row, Remembering()) for row in rows]
    assert list(found["lm.prompt"].real) == [len(row["prompt"]) for row in made]
    assert list(found["lm.answer"].real) == [len(row["answer"]) for row in made]
    batch = family.preparer.collate(made)
    assert batch.inputs["lm"]["input_ids"].shape[1] == max(found["lm.prompt"].padded)
    assert batch.answers["label"].shape[1] == max(found["lm.answer"].padded)


WROTE = {"llava": seeing.write_llava, "qwen": seeing.write_qwen, "smolvlm": write_smolvlm}


@pytest.mark.parametrize("kind", WROTE)
def test_a_model_that_reads_pictures_itself_tells_the_lengths_of_its_prompt_by_their_headers(kind: str, tmp_path: Path) -> None:
    family: Any = whole(WROTE[kind](tmp_path))
    made = [picture_row(place, "a moon " * place, "which? " * (1 + place), size) for place, size in enumerate(SIZES)]
    samples = [
        *made,
        Sample("torn", {"image": Part("image", Media(key="torn", data=b"\xff\xd8\xff")), "question": made[0].parts["question"]}),
    ]
    found, rows = family.preparer.lengths(samples), [family.preparer.prepare(one, Remembering()) for one in made]
    assert list(found["joined.prompt"].real) == [*(row["inputs"]["input_ids"].shape[1] for row in rows), 0]
    assert list(found["joined.answer"].real) == [*(len(row["answer"]) for row in rows), 0]
    for preparer in (family.preparer, family.preparer.tight()):
        width = preparer.collate(rows).inputs["joined"]["attention_mask"].shape[1]
        assert width == max(preparer.lengths(made)["joined.prompt"].padded)
    longest = max(row["inputs"]["input_ids"].shape[1] for row in rows)
    assert family.preparer.tight().collate(rows).inputs["joined"]["input_ids"].shape[1] == longest + 1


@pytest.mark.parametrize("kind", encoder_decoders.KINDS)
def test_an_encoder_decoder_tells_the_lengths_of_what_both_sides_take(kind: str, encoders: Folders) -> None:
    family: Any = encoder_decoders.built(encoders[kind], encoder_decoders.needs(kind))
    samples = encoder_decoders.rows(kind)
    found, rows = family.preparer.lengths(samples), [family.preparer.prepare(one, Remembering()) for one in samples]
    assert list(found["decoder.answer"].real) == [len(row["answer"]) for row in rows]
    assert list(found["decoder.prompt"].real) == [len(row["given"]) for row in rows]
    assert ("encoder" in found) == (kind in ("t5", "bart"))  # of pictures and of sounds in windows all are as long
    for preparer in (family.preparer, family.preparer.tight()) if "encoder" in found else ():
        assert preparer.collate(rows).inputs["encoder"]["input_ids"].shape[1] == max(preparer.lengths(samples)["encoder"].padded)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Small encoder-decoders."""
    return encoder_decoders.write_folders(tmp_path_factory.mktemp("two-sided"))


def test_grouped_rows_of_a_model_that_reads_pictures_itself_have_the_losses_of_ungrouped_ones(tmp_path: Path) -> None:
    family: Any = whole(seeing.write_qwen(tmp_path)).eval()
    rows = [
        family.preparer.prepare(picture_row(place, "a moon", "w " * (1 + place), size), Remembering()) for place, size in enumerate(SIZES)
    ]

    def losses(preparer: Any) -> torch.Tensor:
        batch = preparer.collate(rows)
        with torch.no_grad():
            logits = family(batch).logits["caption"]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.answers["caption"].flatten(), reduction="none")

    assert losses(family.preparer).allclose(losses(family.preparer.tight()), rtol=0, atol=1e-5)
