"""Sounds as waves: a bank of learned filters, then convolutions over time, 20 tokens a second; from scratch.

The filters begin as windowed tones at equal steps of the mel scale, 25 ms long, 80 times a second; what is read of each is the
logarithm of its power. Then blocks of a convolution over five frames, a norm and two linear layers; the first two halve the
frames. Padding changes nothing: a row gives what it gives alone.

Source: the filters of Zeghidour et al. 2018, arXiv:1711.01161, with a Hann window and no second filter over time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedConfig, initialization

from multitune.models.layers.scratch import ScratchTower, Size, Started, TowerOutput, known, waves
from multitune.models.load import Blueprint

FRAMES_PER_SECOND = 80
FLOOR = 1e-3  # of a filter's power, which is about 1 for a wave of deviation 1
LOWEST = 40.0  # Hz: the lowest filter's tone


class Options(Size):
    """The size of the tower, and the waves that it takes."""

    depth: int = Field(default=4, ge=2, le=200, description="blocks; the first two halve the frames")
    filters: int = Field(default=64, ge=1, le=1024, description="of the first layer")
    sampling_rate: int = Field(default=16_000, ge=800, le=192_000, multiple_of=FRAMES_PER_SECOND, description="Hz")


class Config(PreTrainedConfig):
    """What config.json holds."""

    model_type = "multitune-conv1d"

    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_filters: int = 64
    sampling_rate: int = 16_000
    dropout: float = 0.0


class Filters(Started):
    """wave (rows, samples) -> log power (rows, frames, filters); frame f is centred on the middle of its own samples."""

    def __init__(self, count: int, rate: int) -> None:
        super().__init__()
        self.rate, self.step, self.length = rate, rate // FRAMES_PER_SECOND, rate // 40
        self.weight = nn.Parameter(torch.empty(2 * count, 1, self.length))

    def start(self) -> None:
        """Cosines, then sines, under a window; a wave of deviation 1 that is all in one filter has power 1."""
        count, device = self.weight.shape[0] // 2, self.weight.device
        lowest, highest = _mel(min(LOWEST, self.rate / 8)), _mel(0.45 * self.rate)
        mels = lowest + (highest - lowest) * torch.arange(count, device=device) / max(1, count - 1)
        hertz = 700 * (torch.pow(10, mels / 2595) - 1)
        seconds = (torch.arange(self.length, device=device) - self.length / 2) / self.rate
        angles = 2 * math.pi * hertz[:, None] * seconds[None]
        window = torch.hann_window(self.length, periodic=False, device=device)
        tones = torch.cat([angles.cos(), angles.sin()]) * window * (math.sqrt(2) / window.sum())
        initialization.copy_(self.weight, tones[:, None])

    def forward(self, wave: Tensor) -> Tensor:
        """One frame for each step of the wave, the last perhaps in part beyond its end."""
        frames = -(-wave.shape[1] // self.step)
        before = (self.length - self.step) // 2
        after = (frames - 1) * self.step + self.length - before - wave.shape[1]
        waves_in = nn.functional.pad(wave, (before, after))[:, None]
        cosine, sine = nn.functional.conv1d(waves_in, self.weight, stride=self.step).chunk(2, dim=1)
        return (cosine.square() + sine.square() + FLOOR).log().transpose(1, 2)


class Block(nn.Module):
    """Frames (rows, t, width) -> the same, or every second one; zeros where `mask` is false."""

    def __init__(self, width: int, *, step: int, dropout: float) -> None:
        super().__init__()
        self.step = step
        self.look = nn.Conv1d(width, width, 5, stride=step, padding=2)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """The skip and what the block adds. mask: of the frames that it gives."""
        seen = self.look(frames.transpose(1, 2)).transpose(1, 2)
        made: Tensor = frames[:, :: self.step] + self.dropout(self.mlp(self.norm(seen)))
        return _kept(made, mask)


class SoundConvolutions(ScratchTower):
    """filters -> norm, linear -> blocks -> norm."""

    config_class = Config
    main_input_name = "input_values"
    input_modalities = "audio"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.filters = Filters(config.num_filters, config.sampling_rate)
        self.norm_filters = nn.LayerNorm(config.num_filters)
        self.widen = nn.Linear(config.num_filters, width)
        self.layers = nn.ModuleList(
            [Block(width, step=2 if place < 2 else 1, dropout=config.dropout) for place in range(config.num_hidden_layers)]
        )
        self.norm = nn.LayerNorm(width)
        self.post_init()

    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None) -> TowerOutput:
        """input_values (rows, samples), attention_mask (rows, samples), 1 where real, at the start -> tokens (rows, t, width)."""
        frames = self.filters(input_values)
        real = None if attention_mask is None else -(-attention_mask.sum(1) // self.filters.step)
        mask = _first(real, frames.shape[1])
        frames = _kept(self.widen(self.norm_filters(frames)), mask)
        for layer in self.layers:
            if layer.step == 2:
                real = None if real is None else -(-real // 2)
                mask = _first(real, -(-frames.shape[1] // 2))
            frames = layer(frames, mask)
        return TowerOutput(last_hidden_state=self.norm(frames), token_mask=mask)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _first(counts: Tensor | None, length: int) -> Tensor | None:
    """bool (rows, length): true for the first `counts` of each row."""
    return None if counts is None else torch.arange(length, device=counts.device)[None] < counts[:, None]


def _kept(frames: Tensor, mask: Tensor | None) -> Tensor:
    return frames if mask is None else frames * mask.unsqueeze(-1).to(frames.dtype)


def build(options: Options, reads: Sequence[str]) -> Blueprint:
    """The tower; `reads`, what its part takes, is checked by who asks."""
    config = Config(
        hidden_size=options.width,
        num_hidden_layers=options.depth,
        num_filters=options.filters,
        sampling_rate=options.sampling_rate,
        dropout=options.dropout,
    )
    return Blueprint(SoundConvolutions, config, waves(options.sampling_rate))


known(Config, SoundConvolutions)
