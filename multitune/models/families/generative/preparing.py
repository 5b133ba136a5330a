"""From samples to what the composed model reads: each tower's signal, the prompt's tokens, the answer's tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multitune.core.errors import ModelError
from multitune.core.protocols import Batch, Memo, Needs, Sample
from multitune.data.bucketing.lengths import Stream
from multitune.data.decode import BadPart, opened
from multitune.models.families.generative.prompt import Prompt, neutral, special_tokens
from multitune.models.prepare import TowerPreparer
from multitune.models.signals import BUCKET, NO_LIMIT, Signal, TextSignal

IGNORED = -100
LANGUAGE = "lm"
LONGEST = 4096
LONGEST_ANSWER = 512


@dataclass(frozen=True)
class Ends:
    """Token ids around a text: what stands first, what the model learns to end with, what ends the writing."""

    start: int
    end: int
    stop: tuple[int, ...]


def ends(model: Any, tokenizer: Any, *, where: str) -> Ends:
    """The ends that a tokenizer and a folder's generation_config.json state; without a start token the end token is it.

    Raises: ModelError for a tokenizer without an end token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ModelError(where, "its tokenizer has no end token (eos_token).", "State one in tokenizer_config.json.")
    stated = model.generation_config.eos_token_id
    more: list[int] = [] if stated is None else [stated] if isinstance(stated, int) else list(stated)
    start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return Ends(int(start), int(end), tuple(dict.fromkeys([int(end), *more])))


@dataclass(frozen=True)
class Wording:
    """The words around the media: the prompt's template, the answer's name, and how many tokens each may have.

    part_limits: text part -> tokens kept of it. prompt_limit, answer_limit: tokens, the end token among the answer's.
    """

    prompt: Prompt
    answer: str
    part_limits: Mapping[str, int]
    prompt_limit: int
    answer_limit: int


def room(model: Any, tokenizer: Any) -> int:
    """The most tokens that a language model takes: the smaller of its positions and its tokenizer's limit."""
    config = model.config.get_text_config()
    stated = [config.max_position_embeddings] if hasattr(config, "max_position_embeddings") else []
    limits = [limit for limit in (*stated, tokenizer.model_max_length) if isinstance(limit, int) and limit < NO_LIMIT]
    return min(limits, default=LONGEST)


def wording(prompt: Prompt, answer: str, needs: Needs, *, limit: int) -> Wording:
    """The limits that the recipe's `max_length` states; without one an answer has half the model's positions, at most 512."""
    stated = int(needs.answers[answer].options.get("max_length", 0))
    answer_limit = min(stated or min(LONGEST_ANSWER, limit // 2), limit - 1)
    of_part = {name: int(needs.parts[name].options.get("max_length", 0)) or limit for name in prompt.parts}
    return Wording(prompt, answer, of_part, max(1, limit - 1 - answer_limit), answer_limit)


@dataclass(frozen=True)
class ComposedPreparer:
    """A row: each tower's row as `TowerPreparer` makes it, the prompt's token ids, and the answer's if it has an answer.

    step: prompts are padded to a multiple of it.
    """

    towers: TowerPreparer
    tokenizer: Any
    wording: Wording
    ends: Ends
    limit: int
    step: int = BUCKET

    @property
    def signals(self) -> Mapping[str, Signal]:
        """Each tower's way in, by its part."""
        return self.towers.signals

    def check(self) -> None:
        """Raises: ModelError if the prompt alone is longer than what the language model has room for."""
        length = len(self.tokenizer(self.wording.prompt.fill({}), add_special_tokens=False, verbose=False)["input_ids"])
        if length > self.wording.prompt_limit:
            found = f"the prompt has {length} tokens; beside the answer there is room for {self.wording.prompt_limit}."
            raise ModelError("model.prompt", found, "Shorten it, or lower the answer's max_length.")

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """One row alone; `truncated`: part -> tokens that did not fit.

        Raises: BadPart for a part that cannot be decoded.
        """
        row = dict(self.towers.prepare(sample, memo))
        truncated = dict(row["truncated"])
        row["prompt"] = self._prompt(sample, truncated)
        if self.wording.answer in sample.parts:
            row["answer"] = self._said(sample, truncated)
        return row | {"truncated": truncated}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Rows as the model takes them; answers are -100 where a row has none."""
        batch = self.towers.collate(rows)
        answers = [row.get("answer", np.empty(0, np.int64)) for row in rows]
        length = max(1, *(len(ids) for ids in answers))
        return Batch(
            ids=batch.ids,
            inputs={**batch.inputs, LANGUAGE: self._language([row["prompt"] for row in rows])},
            answers={self.wording.answer: torch.stack([padded(ids, length, IGNORED) for ids in answers])},
            presence={**batch.presence, self.wording.answer: torch.tensor(["answer" in row for row in rows])},
        )

    def bucket(self, row: Mapping[str, Any]) -> Hashable:
        """What the towers' rows pad to, and the prompt."""
        return self.towers.bucket(row), rounded(len(row["prompt"]), self.step)

    def lengths(self, samples: Sequence[Sample]) -> Mapping[str, Stream]:
        """How long rows will be: of parts whose length varies, of the prompt's tokens, and of the answer's."""
        asked = [self._told(sample, self._prompt) for sample in samples]
        said = [self._told(sample, self._said) for sample in samples]
        words = {f"{LANGUAGE}.prompt": Stream(asked, [rounded(one, self.step) for one in asked]), f"{LANGUAGE}.answer": Stream(said, said)}
        return {**self.towers.lengths(samples), **words}

    def tight(self, stored: Collection[str] = ()) -> ComposedPreparer:
        """The same, padding prompts, and texts that are not stored, to the longest row and no further."""
        return replace(self, towers=self.towers.tight(stored), step=1)

    def describe(self) -> Mapping[str, Any]:
        """All that decides what a row becomes."""
        return {
            **({"step": self.step} if self.step != BUCKET else {}),
            "parts": self.towers.describe()["parts"],
            "lm": dict(TextSignal(self.tokenizer, self.limit).describe()),
            "prompt": self.wording.prompt.template,
            "part_limits": dict(self.wording.part_limits),
            "limits": {"prompt": self.wording.prompt_limit, "answer": self.wording.answer_limit},
            "ends": [self.ends.start, self.ends.end, *self.ends.stop],
        }

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()

    @cached_property
    def _special(self) -> tuple[str, ...]:
        return special_tokens(self.tokenizer)

    def _prompt(self, sample: Sample, truncated: dict[str, int]) -> np.ndarray:
        values: dict[str, str] = {}
        for name in self.wording.prompt.parts:
            if name in sample.parts:
                text = neutral(opened(sample.parts[name]).value, self._special)
                values[name], cut = shortened(text, self.tokenizer, self.wording.part_limits[name])
                truncated |= {name: cut} if cut else {}
        ids = self.tokenizer(self.wording.prompt.fill(values), add_special_tokens=False, verbose=False)["input_ids"]
        over = len(ids) - self.wording.prompt_limit
        if over > 0:
            truncated[self.wording.prompt.parts[-1]] = over
        return np.asarray(ids[max(0, over) :], np.int64)

    def _told(self, sample: Sample, ids: Callable[[Sample, dict[str, int]], np.ndarray]) -> int:
        """How many tokens there are; none where a part cannot be read: that is told when the row is prepared."""
        try:
            return len(ids(sample, {}))
        except BadPart:
            return 0

    def _said(self, sample: Sample, truncated: dict[str, int]) -> np.ndarray:
        """The answer's token ids; none where the row has no answer."""
        if self.wording.answer not in sample.parts:
            return np.empty(0, np.int64)
        ids = answer_ids(opened(sample.parts[self.wording.answer]).value, self.tokenizer, self.ends.end)
        over = len(ids) - self.wording.answer_limit
        if over > 0:
            truncated[self.wording.answer] = over
        return np.asarray(ids[: self.wording.answer_limit], np.int64)

    def _language(self, prompts: Sequence[np.ndarray]) -> dict[str, Tensor]:
        length = max(rounded(len(ids), self.step) for ids in prompts)
        mask = torch.stack([padded(np.ones(len(ids), np.int64), length, 0) for ids in prompts])
        return {"input_ids": torch.stack([padded(ids, length, self.ends.end) for ids in prompts]), "attention_mask": mask}


def rounded(length: int, step: int = BUCKET) -> int:
    """A length rounded up to a multiple of `step`."""
    return -(-length // step) * step


def answer_ids(text: str, tokenizer: Any, end: int) -> list[int]:
    """An answer's token ids with the end token; special tokens that it spells are read as ordinary text."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return [*map(int, ids), end]


def shortened(text: str, tokenizer: Any, limit: int) -> tuple[str, int]:
    """The text's first `limit` tokens, and how many were cut."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) <= limit:
        return text, 0
    return str(tokenizer.decode(ids[:limit], clean_up_tokenization_spaces=False)), len(ids) - limit


def padded(ids: np.ndarray, length: int, filler: int) -> Tensor:
    """int64 (length,): the ids, then the filler."""
    made = torch.full((length,), filler, dtype=torch.int64)
    made[: len(ids)] = torch.from_numpy(ids)
    return made
