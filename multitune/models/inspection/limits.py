"""What a tower takes: picture sizes, lengths, rates, as its processor and its config state them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedModel

from multitune.models.weights.limits import limit_of


def limits_of(modality: str, tower: PreTrainedModel, processor: Any) -> dict[str, str]:
    """The limits of a tower, by name; what neither its processor nor its config states is left out."""
    settings = tower.config.to_dict()
    if modality == "text":
        return dict(_of_text(tower, settings, processor))
    if modality == "audio":
        return dict(_of_sound(settings, processor))
    return dict(_of_pictures(settings, processor))


def picture_size(processor: Any) -> tuple[int, int] | None:
    """Height and width that an image processor brings pictures to, if it brings them to one size."""
    cropped = _setting(processor, "crop_size") if _setting(processor, "do_center_crop") else None
    for size in (cropped, _setting(processor, "size")):
        height, width = (size.get(side) if isinstance(size, Mapping) else getattr(size, side, None) for side in ("height", "width"))
        if isinstance(height, int) and isinstance(width, int):
            return height, width
    return None


def sampling_rate(processor: Any) -> int | None:
    """Values a second that a feature extractor wants."""
    rate = _setting(processor, "sampling_rate")
    return rate if isinstance(rate, int) else None


def longest_sound(processor: Any) -> float | None:
    """Seconds of sound that a feature extractor takes at most, if it cuts what is longer."""
    rate, values, seconds = sampling_rate(processor), _setting(processor, "n_samples"), _setting(processor, "chunk_length")
    if rate and isinstance(values, int):
        return values / rate
    frames, hop = _setting(processor, "max_length"), _setting(processor, "hop_length") or (rate // 100 if rate else None)
    if isinstance(seconds, int | float):
        return float(seconds)
    return (
        frames * hop / rate if rate and isinstance(frames, int) and isinstance(hop, int) and _setting(processor, "num_mel_bins") else None
    )


def _of_pictures(settings: Mapping[str, Any], processor: Any) -> Iterator[tuple[str, str]]:
    size = picture_size(processor)
    if size is not None:
        yield "picture", f"{size[0]} x {size[1]} (its processor makes every picture this large)"
    else:
        yield from _edges(processor)
    built = settings.get("image_size")
    if isinstance(built, int | list | tuple):
        yield "built for", " x ".join(str(side) for side in (built if isinstance(built, list | tuple) else (built, built)))
    for name, label in (("patch_size", "patch"), ("num_channels", "channels"), ("num_frames", "frames")):
        if isinstance(settings.get(name), int | list | tuple):
            yield label, str(settings[name])


def _edges(processor: Any) -> Iterator[tuple[str, str]]:
    stated = _setting(processor, "size")
    for edge in ("longest_edge", "shortest_edge"):
        length = stated.get(edge) if isinstance(stated, Mapping) else getattr(stated, edge, None)
        if isinstance(length, int):
            yield "picture", f"{edge.replace('_', ' ')} {length} (its processor keeps the shape)"
            return


def _of_sound(settings: Mapping[str, Any], processor: Any) -> Iterator[tuple[str, str]]:
    rate, longest = sampling_rate(processor), longest_sound(processor)
    if rate is not None:
        yield "rate", f"{rate} Hz"
    if longest is not None:
        yield "length", f"{longest:g} s (what is longer is cut)"
    elif rate is not None:
        yield "length", "any"
    bins = settings.get("num_mel_bins")
    if isinstance(bins, int):
        yield "mel bins", str(bins)


def _of_text(tower: PreTrainedModel, settings: Mapping[str, Any], processor: Any) -> Iterator[tuple[str, str]]:
    if processor is not None:
        yield "length", f"{limit_of(tower, processor)} tokens (what is longer is cut)"
    if isinstance(settings.get("vocab_size"), int):
        yield "vocabulary", f"{settings['vocab_size']:,}"
    if processor is not None and processor.pad_token_id is None:
        yield "padding token", "none"


def _setting(processor: Any, name: str) -> Any:
    return getattr(processor, name, None)
