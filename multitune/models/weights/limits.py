"""What a tower takes at most, and whether its processor gives what it asks for."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PreTrainedModel

from multitune.core.errors import ModelError
from multitune.models import signals


def limit_for(modality: str, module: PreTrainedModel, processor: Any) -> int:
    """What a tower takes at most of its signal: tokens of a text, exactly so many frames of a film; 0: as much as there is."""
    if modality == "video":
        frames = module.config.to_dict().get("num_frames")
        return frames if isinstance(frames, int) else 0
    return limit_of(module, processor) if modality == "text" else 0


def limit_of(module: PreTrainedModel, tokenizer: Any) -> int:
    """The most tokens that a text tower takes: the smaller of its tokenizer's limit and its positions."""
    positions = (getattr(module.config, name, None) for name in ("max_position_embeddings", "max_target_positions"))
    stated = (*positions, tokenizer.model_max_length)
    limits = [int(limit) for limit in stated if isinstance(limit, int) and 0 < limit < signals.NO_LIMIT]
    return min(limits, default=signals.DEFAULT_TEXT_LIMIT)


def refuse_unfed(module: PreTrainedModel, modality: str, processor: Any, where: str) -> None:
    """Refuse a tower whose forward asks for what its processor does not give.

    Raises: ModelError with what is lacking.
    """
    way = signals.signal(modality, processor, limit=limit_for(modality, module, processor))
    given = way.batch([way.row(way.sample())])
    asked = inspect.signature(module.forward).parameters.values()
    plain = (one for one in asked if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY))
    lacking = [one.name for one in plain if one.default is one.empty and one.name not in given]
    if lacking:
        found = f"{type(module).__name__} needs {', '.join(lacking)}; its processor gives {', '.join(given)}."
        raise ModelError(where, found, "Choose a model whose processor feeds it as it is, without a head.")
