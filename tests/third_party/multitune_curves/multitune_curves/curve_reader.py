"""Curves through a transformer, one token a point; from scratch.

Its processor is its signal: the way from a decoded curve to the tower's input. It is saved beside the weights like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import FeatureExtractionMixin, PreTrainedConfig

from multitune.models.layers.attention import Block
from multitune.models.layers.scratch import AttentiveSize, ScratchTower, Table, TowerOutput, known
from multitune.models.load import Blueprint
from multitune_curves.curve import LONGEST

STEP = 8


class Options(AttentiveSize):
    """The size of the tower."""


class CurvePoints(FeatureExtractionMixin):
    """A signal for curves: padded to a multiple of eight points, with a mask."""

    modality = "curve"
    key = "curve"
    model_input_names = ["points", "attention_mask"]  # noqa: RUF012

    def row(self, value: np.ndarray) -> Mapping[str, Any]:
        """The points of one curve."""
        return {"points": value}

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """points (rows, longest), attention_mask (rows, longest), 1 where there is a point."""
        points = torch.zeros(len(rows), max(self.bucket(row)[0] for row in rows))
        mask = torch.zeros(points.shape, dtype=torch.int64)
        for number, row in enumerate(rows):
            count = len(row["points"])
            points[number, :count] = torch.from_numpy(row["points"])
            mask[number, :count] = 1
        return {"points": points, "attention_mask": mask}

    def bucket(self, row: Mapping[str, Any]) -> tuple[int, ...]:
        """The padded length, and whether there is padding."""
        count = len(row["points"])
        padded = -(-count // STEP) * STEP
        return (padded, int(padded > count))

    def describe(self) -> Mapping[str, Any]:
        """All that decides what it gives."""
        return {"processor": type(self).__name__, "step": STEP}

    def sample(self) -> np.ndarray:
        """A rise."""
        return np.linspace(0, 1, 5, dtype=np.float32)


class Config(PreTrainedConfig):
    """What config.json holds."""

    model_type = "multitune-curve_reader"

    hidden_size: int = 32
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    dropout: float = 0.0


class CurveReader(ScratchTower):
    """points, positions -> blocks -> norm."""

    config_class = Config
    main_input_name = "points"
    input_modalities = "curve"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.embed = nn.Linear(1, width)
        self.positions = Table(LONGEST, width, grid=(LONGEST,))
        self.layers = nn.ModuleList(
            [Block(width, config.num_attention_heads, dropout=config.dropout) for _ in range(config.num_hidden_layers)]
        )
        self.norm = nn.LayerNorm(width)
        self.post_init()

    def forward(self, points: Tensor, attention_mask: Tensor | None = None) -> TowerOutput:
        """points (rows, t), attention_mask (rows, t) -> tokens (rows, t, width)."""
        mask = None if attention_mask is None else attention_mask.bool()
        tokens = self.embed(points.unsqueeze(-1)) + self.positions.weight[: points.shape[1]]
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return TowerOutput(last_hidden_state=self.norm(tokens), token_mask=mask)


def build(options: Options, reads: Sequence[str]) -> Blueprint:
    """The tower with its signal; `reads`, what its part takes, is checked by who asks."""
    config = Config(hidden_size=options.width, num_hidden_layers=options.depth, num_attention_heads=options.heads, dropout=options.dropout)
    return Blueprint(CurveReader, config, CurvePoints())


known(Config, CurveReader, CurvePoints)
