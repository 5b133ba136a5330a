"""What every tower from scratch shares: its options, how its numbers start, what it gives, and its preparers.

A tower plug-in states a config class whose `model_type` is `multitune-<name of the plug-in>` and a model class, and names them to
`known`. Then a folder that such a tower was saved to is loaded like any other (`where.import_own`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    FeatureExtractionMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ViTImageProcessor,
    Wav2Vec2FeatureExtractor,
    initialization,
)
from transformers.utils.generic import ModelOutput

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.models.layers.attention import sines
from multitune.models.where import locate, read_json

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Size(catalog.Options):
    """How deep and how wide."""

    depth: int = Field(default=4, ge=1, le=200, description="blocks")
    width: int = Field(default=128, ge=4, le=16_384, multiple_of=4, description="numbers in a token")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of what each block adds, in training")


class AttentiveSize(Size):
    """How deep, how wide, and how many heads share the width."""

    heads: int = Field(default=4, ge=1, description="of attention; they share the width")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"the width {self.width} is no multiple of {self.heads} heads")
        return self


@dataclass
class TowerOutput(ModelOutput):
    """What a tower from scratch gives: tokens (rows, t, width), and which of them are real, bool (rows, t); none given: all are."""

    last_hidden_state: Tensor | None = None
    token_mask: Tensor | None = None


class Started(nn.Module, ABC):
    """A module with parameters that start otherwise than a layer's."""

    @abstractmethod
    def start(self) -> None:
        """Give every parameter its first numbers, through `transformers.initialization`, which passes over what was loaded."""


class Table(Started):
    """Learned vectors (count, width): drawn, or, for the places of a `grid`, begun as sines and cosines of their coordinates."""

    def __init__(self, count: int, width: int, *, grid: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))
        self.grid = grid

    def start(self) -> None:
        """Standard normal numbers, or the sines."""
        if not self.grid:
            initialization.normal_(self.weight)
            return
        steps = [torch.arange(size, device=self.weight.device) for size in self.grid]
        places = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, -2)
        initialization.copy_(self.weight, sines(places, self.weight.shape[1]))


class ScratchTower(PreTrainedModel):
    """A tower whose weights start at 1 / sqrt(fan-in), biases at zero, norms at one, embeddings standard normal."""

    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012 (as Transformers declares it)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            initialization.normal_(module.weight, std=module.weight.shape[1:].numel() ** -0.5)
            if module.bias is not None:
                initialization.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            initialization.ones_(module.weight)
            initialization.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            initialization.normal_(module.weight)
        elif isinstance(module, Started):
            module.start()


def known(config: type[PreTrainedConfig], model: type[PreTrainedModel], processor: type[FeatureExtractionMixin] | None = None) -> None:
    """Let Transformers' Auto classes find a tower by its `model_type`, and a processor of its own beside it."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    if processor is not None:
        AutoFeatureExtractor.register(config, processor, exist_ok=True)


def pictures(size: int) -> ViTImageProcessor:
    """A processor that brings pictures to (size, size), three channels, numbers in -1..1."""
    return ViTImageProcessor(size={"height": size, "width": size}, do_convert_rgb=True)


def waves(rate: int) -> Wav2Vec2FeatureExtractor:
    """An extractor that takes waves at `rate` Hz, each brought to mean 0 and deviation 1, and says which frames are real."""
    return Wav2Vec2FeatureExtractor(sampling_rate=rate, do_normalize=True, return_attention_mask=True)


def words(name: str, *, max_length: int, where: str) -> PreTrainedTokenizerFast:
    """The tokenizer of an embedded base, a folder or a hub id, for texts of up to `max_length` tokens.

    Raises: ModelError if there is none, or it has no token to fill short texts with.
    """
    place = locate(name, where=where, read_weights=False)
    file = None if place.folder is None else place.folder / "tokenizer.json"
    if place.folder is None or file is None or not file.is_file():
        raise ModelError(where, f'"{name}" has no tokenizer.json.', "Name a folder that has one, or tiny/text.")
    settings = read_json(place.folder / "tokenizer_config.json", where=where)
    special = {token: settings[token] for token in SPECIAL_TOKENS if isinstance(settings.get(token), str)}
    if "pad_token" not in special:
        raise ModelError(where, f'"{name}" has no padding token.', "State pad_token in its tokenizer_config.json.")
    return PreTrainedTokenizerFast(
        tokenizer_file=str(file), model_max_length=max_length, model_input_names=["input_ids", "attention_mask"], **special
    )
