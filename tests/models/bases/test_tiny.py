"""The embedded base: four ordinary Hugging Face folders that plain Transformers loads, and cards that hold to their gate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from multitune.data.sources.chimes.words import VOCABULARY

TINY = Path(__file__).resolve().parents[3] / "multitune" / "models" / "bases" / "tiny"
NAMES = ("image", "audio", "text", "lm")
GATE = {"shape": 0.85, "shape group": 0.9, "colour": 0.95, "timbre": 0.95, "contour": 0.95}


def model_of(name: str) -> PreTrainedModel:
    """A tower as plain Transformers loads it."""
    loader = AutoModelForCausalLM if name == "lm" else AutoModel
    return loader.from_pretrained(TINY / name, dtype=torch.float32).eval()


def test_the_base_takes_at_most_10_megabytes() -> None:
    assert sum(file.stat().st_size for file in TINY.rglob("*") if file.is_file()) <= 10_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_tower_has_about_a_million_parameters_all_finite(name: str) -> None:
    model = model_of(name)
    assert 0.7e6 < model.num_parameters() < 1.3e6
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_the_image_processor_fits_the_image_tower() -> None:
    pixels = AutoImageProcessor.from_pretrained(TINY / "image")(torch.zeros(3, 8, 8, dtype=torch.uint8), return_tensors="pt")
    assert model_of("image")(**pixels).last_hidden_state.shape == (1, 17, 128)


def test_the_feature_extractor_fits_the_audio_tower() -> None:
    heard = AutoFeatureExtractor.from_pretrained(TINY / "audio")(torch.zeros(16_000).numpy(), sampling_rate=16_000, return_tensors="pt")
    assert model_of("audio")(**heard).last_hidden_state.shape == (1, 26, 128)


@pytest.mark.parametrize("name", ["text", "lm"])
def test_a_tokenizer_loses_no_text(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY / name)
    for text in ("the picture shows a red circle", "Nicht wörtlich: 42 %!", "一个红色的圆", "a\tb\nc", "🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_every_word_of_the_embedded_data_is_one_token() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY / "lm")
    assert [word for word in VOCABULARY if len(tokenizer(word)["input_ids"]) != 1] == []


def test_the_two_tokenizers_number_their_tokens_alike() -> None:
    text, lm = (AutoTokenizer.from_pretrained(TINY / name) for name in ("text", "lm"))
    assert text.get_vocab() == lm.get_vocab()


def test_the_text_tokenizer_marks_both_ends_and_the_language_models_does_not() -> None:
    text, lm = (AutoTokenizer.from_pretrained(TINY / name) for name in ("text", "lm"))
    inside = lm("a red circle")["input_ids"]
    assert text("a red circle")["input_ids"] == [text.bos_token_id, *inside, text.eos_token_id]


@pytest.mark.parametrize(
    ("name", "attribute"), [("image", "shape"), ("image", "shape group"), ("image", "colour"), ("audio", "timbre"), ("audio", "contour")]
)
def test_a_card_states_a_probe_above_the_gate(name: str, attribute: str) -> None:
    found = re.search(rf"^\| {attribute} \| (\d\.\d+) \|$", (TINY / name / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    assert found is not None
    assert float(found[1]) >= GATE[attribute]


@pytest.mark.slow
def test_linear_probes_on_other_drawings_reach_the_gate() -> None:
    from recipes.tiny_probe import audio_probes, below_the_gate, image_probes

    probes = image_probes(TINY / "image", rows=2_000) | audio_probes(TINY / "audio", rows=2_000)
    assert below_the_gate({name: value + 0.01 for name, value in probes.items()}) == []
