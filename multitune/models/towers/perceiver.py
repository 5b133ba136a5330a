"""Learned latents read the raw signal once, then think; one tower for pixels or for a wave, whichever its part is; from scratch.

A picture is every pixel with its place, a sound is every 16 samples with their time; places and times are sines and cosines of many
frequencies. Its output has one token for each latent, however large the input. No order of the input is built in, so it asks for more data
than `vit` or `conv1d`.

Source: Jaegle et al. 2021, arXiv:2107.14795 (Perceiver IO's encoder: one reading, then blocks among the latents), with the frames of
sound of arXiv:2103.03206.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedConfig

from multitune.core.errors import ModelError, one_of
from multitune.models.layers.attention import Attention, Block
from multitune.models.layers.scratch import AttentiveSize, ScratchTower, Table, TowerOutput, known, pictures, waves
from multitune.models.load import Blueprint

FRAME = 16  # samples of a wave in one input
SIGNALS = ("image", "audio")


class Options(AttentiveSize):
    """The size of the tower, and what it takes of a picture or a sound."""

    latents: int = Field(default=32, ge=1, le=4096, description="learned vectors that read the input")
    bands: int = Field(default=16, ge=1, le=256, description="frequencies of each coordinate of a place")
    image_size: int = Field(default=64, ge=8, le=1024, description="pixels: height and width that pictures are brought to")
    sampling_rate: int = Field(default=16_000, ge=800, le=192_000, multiple_of=FRAME, description="Hz")


class Config(PreTrainedConfig):
    """What config.json holds."""

    model_type = "multitune-perceiver"

    reads: str = "image"
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_latents: int = 32
    num_bands: int = 16
    image_size: int = 64
    sampling_rate: int = 16_000
    dropout: float = 0.0


class Perceiver(ScratchTower):
    """latents read inputs -> blocks among latents -> norm."""

    config_class = Config
    main_input_name = "pixel_values"
    input_modalities = "image"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.reads == "audio":
            self.main_input_name, self.input_modalities = "input_values", "audio"
        width = config.hidden_size
        source = _source_width(config)
        self.latents = Table(config.num_latents, width)
        self.norm_latents, self.norm_source, self.norm = nn.LayerNorm(width), nn.LayerNorm(source), nn.LayerNorm(width)
        self.read = Attention(width, config.num_attention_heads, source=source)
        self.layers = nn.ModuleList(
            [Block(width, config.num_attention_heads, dropout=config.dropout) for _ in range(config.num_hidden_layers)]
        )
        self.post_init()

    def forward(
        self, pixel_values: Tensor | None = None, input_values: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> TowerOutput:
        """pixel_values (rows, 3, height, width), or input_values (rows, samples) with attention_mask -> tokens (rows, latents, width)."""
        if self.config.reads == "audio":
            assert input_values is not None
            source, mask = self._frames(input_values, attention_mask)
        else:
            assert pixel_values is not None
            source, mask = self._pixels(pixel_values), None
        latents = self.latents.weight.expand(len(source), -1, -1)
        latents = latents + self.read(self.norm_latents(latents), self.norm_source(source), mask)
        for layer in self.layers:
            latents = layer(latents)
        every = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
        return TowerOutput(last_hidden_state=self.norm(latents), token_mask=every)

    def _pixels(self, pixels: Tensor) -> Tensor:
        rows, _, high, wide = pixels.shape
        steps = [torch.linspace(-1, 1, size, device=pixels.device) for size in (high, wide)]
        places = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, 1)
        where = _waves_of(places, self.config.num_bands, highest=self.config.image_size / 4).to(pixels.dtype)
        return torch.cat([pixels.flatten(2).transpose(1, 2), where.expand(rows, -1, -1)], -1)

    def _frames(self, wave: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        wave = nn.functional.pad(wave, (0, -wave.shape[1] % FRAME))
        frames = wave.unflatten(1, (-1, FRAME))
        rate = self.config.sampling_rate / FRAME
        seconds = torch.arange(frames.shape[1], device=wave.device)[:, None] / rate
        where = _waves_of(seconds, self.config.num_bands, highest=rate / 2).to(wave.dtype)
        mask = None
        if attention_mask is not None:
            real = -(-attention_mask.sum(1) // FRAME)
            mask = torch.arange(frames.shape[1], device=wave.device)[None] < real[:, None]
        return torch.cat([frames, where.expand(len(frames), -1, -1)], -1), mask


def _source_width(config: Config) -> int:
    signal, coordinates = (FRAME, 1) if config.reads == "audio" else (3, 2)
    return signal + coordinates * (2 * config.num_bands + 1)


def _waves_of(places: Tensor, bands: int, *, highest: float) -> Tensor:
    """Each coordinate with its sines and cosines at `bands` frequencies from 1/2 to `highest`, in equal ratios.

    places (n, dims) -> (n, dims * (2 * bands + 1)).
    """
    share = torch.arange(bands, device=places.device) / max(1, bands - 1)
    angles = (2 * math.pi * places.unsqueeze(-1) * 0.5 * (2 * highest) ** share).flatten(1)
    return torch.cat([places, angles.sin(), angles.cos()], 1)


def build(options: Options, reads: Sequence[str]) -> Blueprint:
    """The tower for the first of `reads`, what its part takes, that is a picture or a sound; a picture where it is empty.

    Raises: ModelError if none is.
    """
    signal: Literal["image", "audio"] | str = next((name for name in reads or SIGNALS if name in SIGNALS), "")
    if not signal:
        raise ModelError("model.towers", f"perceiver does not read {one_of(reads)}.", "It reads a picture or a sound.")
    config = Config(
        reads=signal,
        hidden_size=options.width,
        num_hidden_layers=options.depth,
        num_attention_heads=options.heads,
        num_latents=options.latents,
        num_bands=options.bands,
        image_size=options.image_size,
        sampling_rate=options.sampling_rate,
        dropout=options.dropout,
    )
    return Blueprint(Perceiver, config, waves(options.sampling_rate) if signal == "audio" else pictures(options.image_size))


known(Config, Perceiver)
