"""From samples to what an encoder-decoder takes: the encoder's input, what is given of the decoder's, and the answer's tokens."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from multitune.core.protocols import Batch, Media, Memo, Sample
from multitune.data.bucketing.lengths import Stream
from multitune.data.decode import BadPart, opened, read_as
from multitune.models import measuring
from multitune.models.families.generative.preparing import IGNORED, answer_ids, padded, shortened
from multitune.models.families.generative.prompt import Prompt, neutral, special_tokens
from multitune.models.families.generative.sides import Frame
from multitune.models.prepare import Prepared
from multitune.models.signals import Row, Signal, Storable, TextSignal

ENCODER, DECODER = "encoder", "decoder"


@dataclass(frozen=True)
class TwoSidedPreparer:
    """A row: `source` (what the encoder's signal made), `given` and `answer` (token ids), `truncated`.

    medium: the part that the encoder reads; empty where it reads the prompt's text. Beside a medium the prompt is given to the decoder,
    before the answer. part_limits: text part -> tokens kept of it, 0: all. prompt_limit, answer_limit: tokens in the decoder, the end
    token among the answer's.
    """

    signal: Signal
    tokenizer: Any
    prompt: Prompt
    answer: str
    medium: str
    frame: Frame
    part_limits: Mapping[str, int]
    prompt_limit: int
    answer_limit: int

    def ways(self) -> Mapping[str, EncoderWay]:
        """The way of what the encoder reads."""
        return {ENCODER: EncoderWay(self, self.signal)} if isinstance(self.signal, Storable) else {}

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """One row alone; `truncated`: part -> tokens that did not fit.

        Raises: BadPart for a part that cannot be decoded, or a picture or a sound that is absent.
        """
        truncated: dict[str, int] = {}
        text = self.prompt.fill({name: self._text(sample, name, truncated) for name in self.prompt.parts if name in sample.parts})
        given = list(self.frame.start)
        if self.medium:
            source = self._medium(sample, memo)
            given += self._ids(text, truncated)
        else:
            source = self.signal.row(text)
        reads = self.medium or next(reversed(self.prompt.parts), "")
        truncated |= {reads: int(source["cut"]) + truncated.get(reads, 0)} if source.get("cut") else {}
        row: dict[str, Any] = {"id": sample.id, "source": source, "given": np.asarray(given, np.int64)}
        if self.answer in sample.parts:
            row["answer"] = self._answer(opened(sample.parts[self.answer]).value, truncated)
        return row | {"truncated": truncated}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Padded on the right; answers are -100 where a row has none."""
        answers = [row.get("answer", np.empty(0, np.int64)) for row in rows]
        length = max(1, *(len(ids) for ids in answers))
        longest = max(len(row["given"]) for row in rows)
        given = torch.stack([padded(row["given"], longest, self.frame.end) for row in rows])
        mask = torch.stack([padded(np.ones(len(row["given"]), np.int64), longest, 0) for row in rows])
        return Batch(
            ids=tuple(row["id"] for row in rows),
            inputs={ENCODER: self.signal.batch([row["source"] for row in rows]), DECODER: {"input_ids": given, "attention_mask": mask}},
            answers={self.answer: torch.stack([padded(ids, length, IGNORED) for ids in answers])},
            presence={self.answer: torch.tensor(["answer" in row for row in rows])},
        )

    def bucket(self, row: Mapping[str, Any]) -> Hashable:
        """What the encoder's row pads to, and the length of what is given to the decoder."""
        return self.signal.bucket(row["source"]), len(row["given"])

    def lengths(self, samples: Sequence[Sample]) -> Mapping[str, Stream]:
        """How long rows will be: of what the encoder reads, where that varies, and of the tokens given to the decoder and the answer's."""
        found = [self._lengths_of(sample) for sample in samples]
        read, given, said = ([one[place] for one in found] for place in range(3))
        signal: Any = self.signal
        varies = isinstance(signal, measuring.Varying) and signal.varies
        made = {ENCODER: signal.lengths(read)} if varies else {}
        return made | {f"{DECODER}.prompt": Stream(given, given), f"{DECODER}.answer": Stream(said, said)}

    def tight(self, stored: Collection[str] = ()) -> TwoSidedPreparer:
        """The same, padding texts that are not stored to the longest row and no further."""
        if isinstance(self.signal, TextSignal) and ENCODER not in stored:
            return replace(self, signal=replace(self.signal, step=1))
        return self

    def describe(self) -> Mapping[str, Any]:
        """All that decides what a row becomes."""
        return {
            "encoder": dict(self.signal.describe()),
            "medium": self.medium,
            "prompt": self.prompt.template,
            "part_limits": dict(self.part_limits),
            "limits": {"prompt": self.prompt_limit, "answer": self.answer_limit},
            "ends": [list(self.frame.start), self.frame.end, *self.frame.stop],
        }

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()

    @cached_property
    def _special(self) -> tuple[str, ...]:
        return special_tokens(self.tokenizer)

    def _lengths_of(self, sample: Sample) -> tuple[Any, int, int]:
        """What decides the length of the encoder's row, and the tokens given to the decoder and those of its answer."""
        try:
            text = self.prompt.fill({name: self._text(sample, name, {}) for name in self.prompt.parts if name in sample.parts})
            said = len(self._answer(opened(sample.parts[self.answer]).value, {})) if self.answer in sample.parts else 0
        except BadPart:
            return None, 0, 0
        if not self.medium:
            return text, len(self.frame.start), said
        return measuring.size_of(sample.parts.get(self.medium)), len(self.frame.start) + len(self._ids(text, {})), said

    def _medium(self, sample: Sample, memo: Memo) -> Row:
        part = sample.parts.get(self.medium)
        if part is None:
            raise BadPart(self.medium, "is missing, and the encoder reads nothing else")
        if isinstance(part.value, Prepared):
            return part.value.row
        if isinstance(part.value, Media):
            return memo.get(f"{self.signal.key}:{read_as(part)}:{part.value.key}", lambda: self.signal.row(opened(part).value))
        return self.signal.row(opened(part).value)

    def _text(self, sample: Sample, name: str, truncated: dict[str, int]) -> str:
        text = neutral(opened(sample.parts[name]).value, self._special)
        if self.part_limits[name]:
            text, cut = shortened(text, self.tokenizer, self.part_limits[name])
            truncated |= {name: cut} if cut else {}
        return text

    def _ids(self, text: str, truncated: dict[str, int]) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []
        over = len(ids) - self.prompt_limit
        if over > 0:
            truncated[self.prompt.parts[-1]] = over
        return [int(token) for token in ids[max(0, over) :]]

    def _answer(self, text: str, truncated: dict[str, int]) -> np.ndarray:
        ids = answer_ids(text, self.tokenizer, self.frame.end)
        over = len(ids) - self.answer_limit
        truncated |= {self.answer: over} if over > 0 else {}
        return np.asarray(ids[: self.answer_limit], np.int64)


@dataclass(frozen=True)
class EncoderWay:
    """What the encoder reads: a picture or a sound; or the prompt with its texts, of which nothing needs to be kept."""

    preparer: TwoSidedPreparer
    signal: Storable
    inputs: str = ENCODER

    @property
    def parts(self) -> tuple[str, ...]:
        """The medium, or the prompt's parts."""
        return (self.preparer.medium,) if self.preparer.medium else self.preparer.prompt.parts

    @property
    def modality(self) -> str:
        """Of the encoder."""
        return self.signal.modality

    @property
    def always(self) -> bool:
        """A prompt is read even where all its parts are absent."""
        return not self.preparer.medium

    def describe(self) -> Mapping[str, Any]:
        """The signal's settings; for texts the prompt's as well."""
        own = self.preparer
        words = {} if own.medium else {"prompt": own.prompt.template, "part_limits": dict(own.part_limits)}
        return {**self.signal.describe(), **words}

    def alone(self, sample: Sample, memo: Memo) -> Row:
        """The row without an answer."""
        return self.preparer.prepare(sample, memo)

    def light(self, row: Row, silent: Sequence[str]) -> Row:
        """As the signal keeps it; of texts nothing: they are read again, which costs little."""
        return self.signal.light(row["source"], silent) if self.preparer.medium else {}
