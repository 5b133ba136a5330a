"""How long what a signal makes will be, from a text's tokens or a medium's header, before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from multitune.core.protocols import Part, Sample, Sound
from multitune.data.bucketing.lengths import Stream
from multitune.data.decode import BadPart, measured, opened

FRAMES_PER_SECOND = 100  # in which a wave is counted, as feature extractors mostly do
TRIED_SECONDS = (1, 3)


@runtime_checkable
class Varying(Protocol):
    """A signal that can tell how long rows will be. varies: false where every row is as long as any other."""

    @property
    def varies(self) -> bool: ...
    def lengths(self, values: Sequence[Any]) -> Stream:
        """The lengths of values: texts themselves; of a medium the size that its header states; None is 0 long."""
        ...


def streams(signals: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, Stream]:
    """Part -> lengths, of the parts whose length varies."""
    found: dict[str, Stream] = {}
    for name, signal in signals.items():
        if isinstance(signal, Varying) and signal.varies:
            found[name] = signal.lengths([size_of(sample.parts.get(name)) for sample in samples])
    return found


def size_of(part: Part | None) -> Any:
    """What decides a part's length: a text itself, of a medium the size that its header states; None where there is none."""
    if part is None:
        return None
    if part.modality != "text":
        return measured(part)
    try:
        return opened(part).value
    except BadPart:
        return None


def of_texts(texts: Sequence[str | None], tokenizer: Any, *, limit: int, bucket: int) -> Stream:
    """Tokens, rounded up to a multiple of `bucket` within the limit; always the limit for a tower that is told of no padding."""
    there = [text for text in texts if text is not None]
    ids = iter(tokenizer(there, truncation=False, verbose=False, return_attention_mask=False)["input_ids"] if there else [])
    real = [0 if text is None else max(1, min(len(next(ids)), limit)) for text in texts]
    told = "attention_mask" in tokenizer.model_input_names
    return Stream(real, [0 if not one else min(-(-one // bucket) * bucket, limit) if told else limit for one in real])


def of_sounds(sizes: Sequence[tuple[int, ...] | None], extractor: Any, frames: tuple[int, int]) -> Stream:
    """Frames of an extractor's features; waves in hundredths of a second, rounded up to tenths. sizes: samples and their rate.

    frames: what two sounds of `TRIED_SECONDS` have.
    """
    rate = int(extractor.sampling_rate)
    wave = frames[1] - frames[0] == rate * (TRIED_SECONDS[1] - TRIED_SECONDS[0])
    slope = (frames[1] - frames[0]) / (TRIED_SECONDS[1] - TRIED_SECONDS[0])
    real: list[int] = []
    padded: list[int] = []
    for size in sizes:
        seconds = 0.0 if size is None else max(0.1, size[0] / size[1])
        length = frames[0] + slope * (seconds - TRIED_SECONDS[0])
        real.append(0 if size is None else max(1, math.ceil(seconds * FRAMES_PER_SECOND if wave else length)))
        padded.append(-(-real[-1] // (FRAMES_PER_SECOND // 10)) * (FRAMES_PER_SECOND // 10) if wave else real[-1])
    return Stream(real, padded)


def tried(extractor: Any, length: Callable[[Sound], int]) -> tuple[int, int]:
    """The lengths of what an extractor makes of two sounds, of `TRIED_SECONDS`. length: of what is made of a sound."""
    rate = int(extractor.sampling_rate)
    tones = (np.sin(np.arange(rate * seconds) * (2 * np.pi * 440 / rate)).astype(np.float32) / 2 for seconds in TRIED_SECONDS)
    short, long = (length(Sound(tone, rate)) for tone in tones)
    return short, long
