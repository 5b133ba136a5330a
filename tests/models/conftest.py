"""Small random models in folders, made from configs alone: any architecture that Transformers knows, with its processor files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "a", "bright", "small", "red", "circle", "near", "two", "blue", "stars", "under", "quiet", "river"]
DRAWN = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
VIT_FILES = {"preprocessor_config.json": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}}
SOUND_FILES = {"preprocessor_config.json": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "return_attention_mask": True}}
FOLDERS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vit": (DRAWN | {"image_size": 32, "patch_size": 16}, VIT_FILES),
    "swin": ({"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}, VIT_FILES),
    "resnet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"}, VIT_FILES),
    "bert": (DRAWN | {"vocab_size": len(WORDS), "max_position_embeddings": 24, "hidden_dropout_prob": 0.1}, {}),
    "wav2vec2": (
        DRAWN | {"conv_dim": [8, 8, 8], "conv_stride": [10, 8, 4], "conv_kernel": [10, 8, 4], "num_conv_pos_embeddings": 8}
        | {"num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 3},
        SOUND_FILES,
    ),
}  # fmt: skip


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words."""
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **(names | special))


def write_folder(folder: Path, kind: str, sizes: Mapping[str, Any], files: Mapping[str, Any]) -> Path:
    """A model folder with drawn weights and these JSON files beside them."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes))
        for parameter in model.parameters():
            parameter.data.mul_(2 if parameter.dim() else 1)  # drawn numbers are small: a wrong one should show
    model.save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    if model.main_input_name == "input_ids":
        tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Folders by the kind of model."""
    root = tmp_path_factory.mktemp("folders")
    return {kind: write_folder(root / kind, kind, sizes, files) for kind, (sizes, files) in FOLDERS.items()}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP folder with its processor."""
    return write_clip(tmp_path_factory.mktemp("clip"))


def write_clip(folder: Path) -> Path:
    """A small CLIP with its processor."""
    text = DRAWN | {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
    sizes = {"text_config": text, "vision_config": DRAWN | {"image_size": 32, "patch_size": 16}, "projection_dim": 12}
    files = {"preprocessor_config.json": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32}}
    write_folder(folder, "clip", sizes, files)
    tokenizer(eos_token="[SEP]", bos_token="[CLS]").save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
