"""The portraits of four models at their published sizes, built from configs without weights, are golden texts.

`MULTITUNE_GOLDEN=write pytest tests/golden` writes them anew, to be read before they are committed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from multitune.verbs.inspect import inspect
from tests.models.conftest import tokenizer

HERE = Path(__file__).parent
CLIP_PICTURES = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
SWIN_PICTURES = {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}
SOUNDS = {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 30, "sampling_rate": 16000, "feature_size": 80}
SMOL_PICTURES = {
    "image_processor_type": "SmolVLMImageProcessor",
    "do_image_splitting": False,
    "size": {"longest_edge": 2048},
    "max_image_size": {"longest_edge": 512},
}
SMOL_TEXT = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49280,
    "max_position_embeddings": 8192,
}
SMOL_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
KINDS: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "clip": ("CLIPModel", {}, CLIP_PICTURES),
    "swin": ("SwinForImageClassification", {"id2label": {place: f"class {place}" for place in range(1000)}}, SWIN_PICTURES),
    "whisper": (
        "WhisperForConditionalGeneration",
        {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
        | {"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048},
        SOUNDS,
    ),
    "smolvlm": (
        "SmolVLMForConditionalGeneration",
        {"text_config": SMOL_TEXT, "vision_config": SMOL_VISION, "scale_factor": 4, "tie_word_embeddings": False},
        SMOL_PICTURES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_portrait_of_a_model_is_as_it_was_read_and_agreed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, sizes, pictures = KINDS[kind]
    folder = tmp_path / kind
    AutoConfig.for_model(kind, architectures=[architecture], **sizes).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    if kind != "swin":
        tokenizer().save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    text = inspect(kind).text + "\n"
    golden = HERE / f"portrait-{kind}.txt"
    if os.environ.get("MULTITUNE_GOLDEN") == "write":
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")
