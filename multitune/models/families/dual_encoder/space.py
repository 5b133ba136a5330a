"""The common space: vectors of unit length, and how they are read out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from multitune.core.protocols import Batch, Embedding, Prediction

MAX_SCALE = 100.0


def embeddings(vectors: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Each row brought to unit length; zeros where the part is absent."""
    return {
        name: torch.nn.functional.normalize(vector, dim=-1) * batch.presence[name].to(vector.dtype).unsqueeze(-1)
        for name, vector in vectors.items()
    }


def predictions(vectors: Mapping[str, Tensor], batch: Batch) -> list[Prediction]:
    """One prediction a row, with the embeddings of the parts that are there."""
    arrays = {name: vector.float().cpu().numpy() for name, vector in vectors.items()}
    there = {name: batch.presence[name].cpu().tolist() for name in vectors}
    return [
        Prediction(id, {name: Embedding(np.array(array[row])) for name, array in arrays.items() if there[name][row]})
        for row, id in enumerate(batch.ids)
    ]
