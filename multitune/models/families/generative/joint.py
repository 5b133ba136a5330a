"""From samples to what a whole model reads: its own processor joins pictures and text; the answer's tokens come after."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from multitune.core.errors import ModelError
from multitune.core.protocols import Batch, Media, Memo, Part, Sample
from multitune.data.bucketing.lengths import Stream
from multitune.data.decode import BadPart, measured, opened
from multitune.models.families.generative.preparing import IGNORED, padded, rounded, shortened
from multitune.models.families.generative.prompt import Prompt, neutral, special_tokens
from multitune.models.families.generative.seen import Replayed, Seen, SightWay
from multitune.models.features.light import is_hollow
from multitune.models.prepare import Prepared
from multitune.models.signals import BUCKET, TextSignal

JOINED = "joined"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class JointPreparer:
    """A row: the processor's arrays for pictures and prompt, and the answer's token ids if it has an answer.

    media: the parts that are pictures, in order. limits: text part or answer -> tokens kept of it, 0: all. limit: tokens in all.
    sight: the tower that reads the pictures; empty where there is not the one. Pictures that are `Prepared` are what `SightWay` keeps.
    step: prompts are padded to a multiple of it.
    """

    processor: Any
    prompt: Prompt
    answer: str
    media: tuple[str, ...]
    limits: Mapping[str, int]
    limit: int
    sight: str = ""
    step: int = BUCKET

    def ways(self) -> Mapping[str, SightWay]:
        """The pictures' way to the tower that reads them."""
        return {self.sight: SightWay(self, self.media)} if self.sight and self.media else {}

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """One row alone; `truncated`: part -> tokens that did not fit.

        Raises: BadPart for a part that cannot be decoded, or a row that is longer than the model takes: media tokens are never cut.
        """
        return self._row(sample, self.seen(sample, memo), None)

    def recorded(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """The row as `prepare` gives it, with what is to be kept of its pictures: `made` by the processor of pictures, their `sizes`."""
        seen = self.seen(sample, memo)
        replayed = Replayed(self.processor.image_processor, None)
        row = self._row(sample, seen, replayed)
        return {**row, "made": replayed.given or {}, "sizes": [list(one.size) for one in seen.pictures] if seen is not None else []}

    def _row(self, sample: Sample, seen: Seen | None, replayed: Replayed | None) -> Mapping[str, Any]:
        truncated: dict[str, int] = {}
        there = [name for name in self.media if name in sample.parts]
        values = {name: self._text(sample.parts[name], name, truncated) for name in self.prompt.parts if name in sample.parts}
        said = self._text(sample.parts[self.answer], self.answer, truncated) if self.answer in sample.parts else None
        asked, told = self._words(self.prompt.fill(values), len(there), said)
        inputs = self._joined(asked, seen, replayed)
        row: dict[str, Any] = {"id": sample.id, "parts": tuple(there), "inputs": inputs, "truncated": truncated}
        if told is not None:
            row["answer"] = np.asarray(self._tail(asked, told), np.int64)
        length = inputs["input_ids"].shape[1] + len(row.get("answer", ()))
        if length > self.limit:
            longest = self.answer if said is not None else next(iter(sample.parts))
            raise BadPart(longest, f"is {length} tokens with pictures and prompt; the model takes {self.limit}")
        return row

    def seen(self, sample: Sample, memo: Memo) -> Seen | None:
        """The pictures of a sample, or what is kept of them; None where it has none. Raises: BadPart for one that cannot be decoded."""
        there = [sample.parts[name] for name in self.media if name in sample.parts]
        if there and isinstance(there[0].value, Prepared):
            return Seen.kept(there[0].value.row)
        return Seen(tuple(_picture(part, memo) for part in there)) if there else None

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Prompts padded on the left, answers on the right (-100); pictures as the processor itself joins rows."""
        length = max(self._length(row) for row in rows)
        inputs = [_left(row["inputs"], length, self.filler) for row in rows]
        names = dict.fromkeys(name for row in inputs for name in row)
        answers = [row.get("answer", np.empty(0, np.int64)) for row in rows]
        longest = max(1, *(len(ids) for ids in answers))
        return Batch(
            ids=tuple(row["id"] for row in rows),
            inputs={JOINED: {name: _stacked([row[name] for row in inputs if name in row]) for name in names}},
            answers={self.answer: torch.stack([padded(ids, longest, IGNORED) for ids in answers])},
            presence={name: torch.tensor([name in row["parts"] for row in rows]) for name in self.media}
            | {self.answer: torch.tensor(["answer" in row for row in rows])},
        )

    def bucket(self, row: Mapping[str, Any]) -> Hashable:
        """The prompt's padded length, and the shapes of what goes with the pictures."""
        length = row["inputs"]["input_ids"].shape[1]
        shapes = tuple(sorted((name, array.shape) for name, array in row["inputs"].items() if array.shape[1:] != (length,)))
        return self._length(row), shapes

    def lengths(self, samples: Sequence[Sample]) -> Mapping[str, Stream]:
        """How long rows will be: of the prompt's tokens, pictures' among them by the size that their headers state, and of the answer's."""
        found = [self._lengths_of(sample) for sample in samples]
        asked, said = ([one[place] for one in found] for place in (0, 1))
        return {
            f"{JOINED}.prompt": Stream(asked, [self._padded(one) if one else 0 for one in asked]),
            f"{JOINED}.answer": Stream(said, said),
        }

    def tight(self, stored: Collection[str] = ()) -> JointPreparer:
        """The same, padding prompts to the longest row and no further; what is stored is of pictures, which it does not pad."""
        return replace(self, step=1)

    def describe(self) -> Mapping[str, Any]:
        """All that decides what a row becomes."""
        return {
            **({"step": self.step} if self.step != BUCKET else {}),
            "processor": json.loads(self.processor.to_json_string()),
            "lm": dict(TextSignal(self.processor.tokenizer, self.limit).describe()),
            "chat_template": str(self.processor.chat_template or ""),
            "prompt": self.prompt.template,
            "limits": dict(self.limits),
        }

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens left out."""
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()

    @cached_property
    def filler(self) -> int:
        """The id that pads input_ids."""
        tokenizer = self.processor.tokenizer
        return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)

    def stops(self) -> tuple[int, ...]:
        """The first special token that the template puts after an answer, if it puts one."""
        asked, told = self._words("a", 0, "a")
        special = set(self.processor.tokenizer.all_special_ids)
        return tuple([token for token in self._tail(asked, told or "") if token in special][:1])

    def _length(self, row: Mapping[str, Any]) -> int:
        return self._padded(row["inputs"]["input_ids"].shape[1])

    def _padded(self, length: int) -> int:
        """Padded length; one column more than the row at least, so that attention takes the same path for every row."""
        return rounded(length + 1, self.step)

    def _lengths_of(self, sample: Sample) -> tuple[int, int]:
        """The tokens of a row's prompt and of its answer; none where a part cannot be read: that is told when the row is prepared."""
        sizes = [measured(sample.parts[name]) for name in self.media if name in sample.parts]
        known = tuple((size[0], size[1]) for size in sizes if size is not None)
        if len(known) < len(sizes):
            return 0, 0
        try:
            told = {name: self._text(sample.parts[name], name, {}) for name in (*self.prompt.parts, self.answer) if name in sample.parts}
            said = told.pop(self.answer, None)
            asked, whole = self._words(self.prompt.fill(told), len(sizes), said)
            more = self._more(known) if known else 0
        except (BadPart, ValueError):
            return 0, 0
        return len(self._ids(asked)) + more, len(self._tail(asked, whole)) if whole is not None else 0

    def _more(self, sizes: tuple[tuple[int, int], ...]) -> int:
        """The tokens that pictures of these heights and widths add to those of the text that names them."""
        if sizes not in self._known:
            asked = self._words("a", len(sizes), None)[0]
            blank = Seen(tuple(Image.new("RGB", (width, height)) for height, width in sizes))
            self._known[sizes] = self._joined(asked, blank, None)["input_ids"].shape[1] - len(self._ids(asked))
        return self._known[sizes]

    @cached_property
    def _known(self) -> dict[tuple[tuple[int, int], ...], int]:
        return {}

    def _ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=self._adds(text), verbose=False)["input_ids"]

    def _text(self, part: Part, name: str, truncated: dict[str, int]) -> str:
        text = neutral(opened(part).value, self._special)
        if self.limits[name]:
            text, cut = shortened(text, self.processor.tokenizer, self.limits[name])
            truncated.update({name: cut} if cut else {})
        return text

    def _words(self, prompt: str, num_pictures: int, said: str | None) -> tuple[str, str | None]:
        """The text up to the answer, and the text with the answer, as the chat template has them or plainly."""
        if not self.processor.chat_template:
            asked = self._image_token * num_pictures + (f"{prompt.rstrip()}\n" if prompt.strip() else "")
            return asked, None if said is None else asked + said + self.processor.tokenizer.eos_token
        content: list[dict[str, str]] = [{"type": "image"}] * num_pictures
        content += [{"type": "text", "text": prompt}] if prompt or not num_pictures else []
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        asked = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        if said is None:
            return asked, None
        messages.append({"role": "assistant", "content": [{"type": "text", "text": said}]})
        return asked, self.processor.apply_chat_template(messages, tokenize=False)

    def _joined(self, text: str, seen: Seen | None, replayed: Replayed | None) -> dict[str, NDArray[Any]]:
        given = {"images": [list(seen.pictures)]} if seen is not None else {}
        processor = self.processor
        if seen is not None and (replayed is not None or seen.made is not None):
            processor = copy.copy(processor)
            processor.image_processor = replayed or Replayed(self.processor.image_processor, seen.made)
        made = processor(text=[text], return_tensors="np", add_special_tokens=self._adds(text), **given)
        return {str(name): np.asarray(array) for name, array in made.items()}

    def _tail(self, asked: str, told: str) -> list[int]:
        """The token ids that the answer adds.

        Raises: ModelError if the tokens up to the answer are not the same with and without it.
        """
        before, after = self._ids(asked), self._ids(told)
        if not told.startswith(asked) or after[: len(before)] != before:
            found = f"the text up to the answer ({asked[-30:]!r}) does not stay the same when the answer follows."
            raise ModelError("model.prompt", found, "End it where a word ends, or mend the folder's chat template.")
        return [int(token) for token in after[len(before) :]]

    def _adds(self, text: str) -> bool:
        start = self.processor.tokenizer.bos_token
        return not (start and text.startswith(start))

    @cached_property
    def _special(self) -> tuple[str, ...]:
        return special_tokens(self.processor.tokenizer)

    @cached_property
    def _image_token(self) -> str:
        token = vars(self.processor).get("image_token")
        if token is None:
            found = "its processor has neither a chat template nor an image token."
            raise ModelError("model.pretrained", found, "Add chat_template.jinja to the folder.")
        return str(token)


def _picture(part: Part, memo: Memo) -> Image.Image:
    value = part.value
    array = memo.get(f"picture:{value.key}", lambda: opened(part).value) if isinstance(value, Media) else opened(part).value
    return Image.fromarray(array)


def _left(arrays: Arrays, length: int, filler: int) -> dict[str, Tensor]:
    """What has one number for each token of the prompt, padded on the left; the rest as it is."""
    own = arrays["input_ids"].shape[1]
    made: dict[str, Tensor] = {}
    for name, array in arrays.items():
        tensor = _tensor(array)
        along = tensor.dim() == 2 and tensor.shape == (1, own)
        value = filler if name == "input_ids" else 0
        made[name] = torch.nn.functional.pad(tensor, (length - own, 0), value=value) if along else tensor
    return made


def _tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor; one that says nothing takes no memory."""
    if is_hollow(array) and array.size:
        return torch.from_numpy(np.array(array.flat[0], array.dtype)).expand(array.shape)
    return torch.from_numpy(np.ascontiguousarray(array))


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Rows one after the other along the first axis, the other axes padded with zeros at their end."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    if all(is_hollow(tensor) and list(tensor.shape[1:]) == shape for tensor in tensors):
        return tensors[0][:1].expand(sum(len(tensor) for tensor in tensors), *shape)
    return torch.cat([_grown(tensor, shape) for tensor in tensors])


def _grown(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    missing = [size for have, want in zip(reversed(tensor.shape[1:]), reversed(shape), strict=True) for size in (0, want - have)]
    return torch.nn.functional.pad(tensor, missing)
