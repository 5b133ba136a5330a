"""What a tower takes: tokens, frames, channels; and the way into it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

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


def channels_of(module: PreTrainedModel) -> int:
    """How many channels a tower's pictures have, as its config says; red, green and blue where it says nothing."""
    stated = module.config.to_dict().get("num_channels")
    return stated if isinstance(stated, int) else signals.COLOURS


def way_into(modality: str, module: PreTrainedModel, processor: Any) -> signals.Signal:
    """The way into a tower: its processor, with what the tower takes at most; a tower of one channel gets grey pictures."""
    return signals.signal(modality, processor, limit=limit_for(modality, module, processor), channels=channels_of(module))
