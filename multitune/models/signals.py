"""From one part's decoded value to what its tower reads: the processor of a tower, for rows and for batches.

A signal is picklable and holds no weights. There is one for each modality that Transformers' towers read; which parts may go to which
is said by the part's modality (`towers`), so a new modality over pictures needs nothing here. A tower plug-in over something else brings
its own: a processor that is a signal itself.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import soxr
import torch
from PIL import Image
from torch import Tensor

from multitune.core import store
from multitune.core.errors import ModelError
from multitune.core.protocols import Sound
from multitune.core.randomness import settled
from multitune.data.bucketing.lengths import Stream
from multitune.models import measuring
from multitune.models.features import light
from multitune.models.tokens import SHARE, vocabulary

Row = Mapping[str, Any]
BUCKET = 8
NO_LIMIT = 1_000_000
DEFAULT_TEXT_LIMIT = 512
COLOURS = 3


@runtime_checkable
class Signal(Protocol):
    """One part's way into its tower."""

    @property
    def modality(self) -> str: ...
    @property
    def key(self) -> str:
        """Changes with everything that changes what `row` gives."""
        ...

    def row(self, value: Any) -> Row:
        """One value, prepared alone; `cut` counts the tokens that did not fit, where that can happen."""
        ...

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows as the tower takes them; padding depends on the longest row, in steps of `BUCKET`."""
        ...

    def bucket(self, row: Row) -> tuple[int, ...]:
        """The padded length of a row and the length of its padding (0 or 1 for any): towers take another path where none is padded."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Plain data: all that decides what `row` and `batch` give."""
        ...

    def sample(self) -> Any:
        """A small decoded value, for trying the tower."""
        ...


@runtime_checkable
class Storable(Signal, Protocol):
    """A way whose rows can stand for themselves where what their tower gives is stored; a signal without it is never stored."""

    def light(self, row: Row, silent: Sequence[str]) -> Row:
        """A row of which `batch` makes tensors of the same shapes; those whose names are silent are without content."""
        ...


@dataclass(frozen=True)
class ImageSignal:
    """Pictures: uint8 (height, width, 3); the processor runs once a batch (a call costs a millisecond, whatever its size).

    channels: that the tower reads; for one they are made grey (by the eye's weights, as Pillow does).
    """

    processor: Any
    channels: int = COLOURS
    modality: str = "image"

    @property
    def key(self) -> str:
        """A row is the picture itself."""
        return "image"

    def row(self, value: np.ndarray) -> Row:
        """The picture as it is."""
        return {"picture": value}

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The processor's tensors.

        Raises: ModelError if the processor leaves pictures of different sizes different.
        """
        if (known := light.joined(rows)) is not None:
            return known
        arrays = [self._seen(row["picture"]) for row in rows]
        if _takes_layout(self.processor):
            made = self.processor(images=arrays, return_tensors="pt", input_data_format="channels_last")
        else:  # it would guess which axis of an array holds the channels; a picture says so itself
            made = self.processor(
                images=[Image.fromarray(array[..., 0] if self.channels == 1 else array) for array in arrays], return_tensors="pt"
            )
        tensors = {str(name): value for name, value in made.items() if isinstance(value, Tensor)}
        if any(tensor.shape[0] != len(rows) for tensor in tensors.values()) or not tensors:
            raise ModelError("image processor", "gives no tensor with a row for each picture.", "Use one that resizes to one size.")
        return tensors

    def bucket(self, row: Row) -> tuple[int, ...]:
        """Always the same: the processor brings pictures to one size."""
        return ()

    def light(self, row: Row, silent: Sequence[str]) -> Row:
        """What the processor makes of it, without content where silent; all of it is of the sample where all is silent."""
        made = self._made if set(self._made) <= set(silent) else self.batch([row])
        return light.of_batch(made, silent)

    @cached_property
    def _made(self) -> Mapping[str, Tensor]:
        return self.batch([self.row(self.sample())])

    def describe(self) -> Mapping[str, Any]:
        """The processor's settings."""
        grey = {"channels": 1} if self.channels == 1 else {}
        return {"processor": type(self.processor).__name__, **grey, **_plain(self.processor.to_dict())}

    def sample(self) -> np.ndarray:
        """A grey ramp, 40 x 48."""
        ramp = np.linspace(0, 255, 40 * 48 * 3).astype(np.uint8)
        return ramp.reshape(40, 48, 3)

    def _seen(self, picture: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(picture if self.channels != 1 else np.array(Image.fromarray(picture).convert("L"))[..., None])


@dataclass(frozen=True)
class TextSignal:
    """Texts: token ids, cut at `limit` tokens and padded to a multiple of `step`."""

    tokenizer: Any
    limit: int
    modality: str = "text"
    step: int = BUCKET

    @property
    def key(self) -> str:
        """The tokenizer and the limit."""
        return self._key

    @cached_property
    def _key(self) -> str:
        return store.key(dict(self.describe()))

    def row(self, value: str) -> Row:
        """Token ids with whatever else the tower reads of each token; `cut`: tokens over the limit."""
        full = self.tokenizer(value, truncation=False, verbose=False)
        cut = max(0, len(full["input_ids"]) - self.limit)
        if cut:
            full = self.tokenizer(value, truncation=True, max_length=self.limit)
        if not full["input_ids"]:
            full = {name: [self._filler("input_ids")] if name == "input_ids" else [0] for name in full}
            full["attention_mask"] = [1]
        return {"names": {name: np.asarray(full[name], dtype=np.int64) for name in full}, "cut": cut}

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Padded on the right to the longest row, rounded up within the limit."""
        length = max(self.bucket(row)[0] for row in rows)
        names = rows[0]["names"]
        made = {name: np.full((len(rows), length), self._filler(name), dtype=np.int64) for name in names}
        for position, row in enumerate(rows):
            for name, values in row["names"].items():
                made[name][position, : len(values)] = values
        return {name: torch.from_numpy(array) for name, array in made.items()}

    def bucket(self, row: Row) -> tuple[int, ...]:
        """The length, rounded up to a multiple of `step` within the limit; always the limit for a tower that is told of no padding."""
        length = len(row["names"]["input_ids"])
        if "attention_mask" not in row["names"]:
            return (self.limit, 0)
        padded = min(-(-length // self.step) * self.step, self.limit)
        return (padded, int(padded > length))

    varies = True

    def lengths(self, values: Sequence[str | None]) -> Stream:
        """Of texts."""
        return measuring.of_texts(values, self.tokenizer, limit=self.limit, bucket=self.step)

    def light(self, row: Row, silent: Sequence[str]) -> Row:
        """The row itself: ids weigh little."""
        return row

    def describe(self) -> Mapping[str, Any]:
        """The tokenizer's vocabulary (hashed) and settings."""
        words = store.key({"backend": vocabulary(self.tokenizer)})
        made = {"processor": type(self.tokenizer).__name__, "vocabulary": words, "limit": self.limit}
        return made if self.step == BUCKET else made | {"step": self.step}

    def sample(self) -> str:
        """A few words."""
        return "a small red circle"

    def _filler(self, name: str) -> int:
        filler = self.tokenizer.pad_token_id if name == "input_ids" else 0
        return int(filler if filler is not None else self.tokenizer.eos_token_id or 0)


@dataclass(frozen=True)
class AudioSignal:
    """Sounds: brought to the extractor's rate and made into features row by row, to be remembered."""

    extractor: Any
    modality: str = "audio"

    @property
    def key(self) -> str:
        """The extractor's settings."""
        return self._key

    @cached_property
    def _key(self) -> str:
        return store.key(dict(self.describe()))

    def row(self, value: Sound) -> Row:
        """Name -> float32 array of one row's features; what is shorter than a tenth of a second is filled with silence.

        `cut`: frames that did not fit into an extractor's fixed window.
        """
        rate = int(self.extractor.sampling_rate)
        wave = value.wave if value.rate == rate else soxr.resample(value.wave, value.rate, rate)
        wave = np.pad(wave, (0, max(0, rate // 10 - len(wave))))
        heard = hashlib.blake2b(np.ascontiguousarray(wave).tobytes(), digest_size=16).hexdigest()
        with settled("sound", heard):  # what an extractor draws (where it cuts a long sound) follows from the sound
            made = self.extractor(wave, sampling_rate=rate, return_tensors="np")
        settings = self.extractor.to_dict()
        over = len(wave) - int(settings.get("n_samples") or len(wave))
        cut = -(-over // int(settings.get("hop_length") or 1)) if over > 0 else 0
        return {"names": {str(name): np.asarray(array[0]) for name, array in made.items()}, "cut": cut}

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Stacked; where lengths differ, padded at the end with `share` and, if the tower reads it, `attention_mask`."""
        made: dict[str, Tensor] = {}
        lengths = [self._length(row) for row in rows]
        longest = max(self.bucket(row)[0] for row in rows)
        for name in rows[0]["names"]:
            made[name] = torch.stack([_padded(row["names"][name], length, longest) for row, length in zip(rows, lengths, strict=True)])
        if any(length != longest for length in lengths):
            made[SHARE] = torch.tensor([length / longest for length in lengths], dtype=torch.float64)
        return made

    def bucket(self, row: Row) -> tuple[int, ...]:
        """The length of the row's features; waves are rounded up to a tenth of a second."""
        length = self._length(row)
        step = int(self.extractor.sampling_rate) // 10 if self._main(row).ndim == 1 else 1
        padded = -(-length // step) * step
        return (padded, int(padded > length))

    @cached_property
    def varies(self) -> bool:
        """False for an extractor that fills every sound up to one length."""
        return self._tried[0] != self._tried[1]

    def lengths(self, values: Sequence[tuple[int, ...] | None]) -> Stream:
        """Of sounds, by their samples and their rate."""
        return measuring.of_sounds(values, self.extractor, self._tried)

    @cached_property
    def _tried(self) -> tuple[int, int]:
        return measuring.tried(self.extractor, lambda sound: self._length(self.row(sound)))

    def light(self, row: Row, silent: Sequence[str]) -> Row:
        """The same lengths; silent features without content."""
        names = {name: light.hollow(array.shape, array.dtype) if name in silent else array for name, array in row["names"].items()}
        return {"names": names, "cut": row["cut"]}

    def describe(self) -> Mapping[str, Any]:
        """The extractor's settings."""
        return {"processor": type(self.extractor).__name__, **_plain(self.extractor.to_dict())}

    def sample(self) -> Sound:
        """A second of a 440 Hz tone."""
        rate = int(self.extractor.sampling_rate)
        return Sound(np.sin(np.arange(rate) * (2 * np.pi * 440 / rate)).astype(np.float32) * 0.5, rate)

    def _main(self, row: Row) -> np.ndarray:
        return cast("np.ndarray", row["names"][self.extractor.model_input_names[0]])

    def _length(self, row: Row) -> int:
        return int(self._main(row).shape[0])


@dataclass(frozen=True)
class VideoSignal:
    """Films: uint8 (frames, height, width, 3). frames: how many the tower takes, spread evenly over the film; 0: all of it."""

    processor: Any
    frames: int
    modality: str = "video"

    @property
    def key(self) -> str:
        """A row is the frames themselves, so many of them."""
        return f"video:{self.frames}"

    def row(self, value: np.ndarray) -> Row:
        """The frames in the middle of equal stretches; a film that has fewer repeats some."""
        count = self.frames or len(value)
        places = (2 * np.arange(count) + 1) * len(value) // (2 * count)
        return {"film": value[places]}

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The processor's tensors.

        Raises: ModelError if the processor leaves films of different sizes different.
        """
        if (known := light.joined(rows)) is not None:
            return known
        films = [np.ascontiguousarray(row["film"]) for row in rows]
        made = self.processor(videos=films, return_tensors="pt", input_data_format="channels_last")
        tensors = {str(name): value for name, value in made.items() if isinstance(value, Tensor)}
        if any(tensor.shape[0] != len(rows) for tensor in tensors.values()) or not tensors:
            raise ModelError("video processor", "gives no tensor with a row for each film.", "Use one that resizes to one size.")
        return tensors

    def bucket(self, row: Row) -> tuple[int, ...]:
        """The number of frames; the processor brings them to one size."""
        return (len(row["film"]),) if "film" in row else tuple(row["frames"])

    @property
    def varies(self) -> bool:
        """Where the tower takes all of a film."""
        return not self.frames

    def lengths(self, values: Sequence[tuple[int, ...] | None]) -> Stream:
        """Of films, by their frames."""
        frames = [0 if size is None else size[0] for size in values]
        return Stream(frames, frames)

    def light(self, row: Row, silent: Sequence[str]) -> Row:
        """What the processor makes of it, without content where silent, and the number of frames."""
        return {**light.of_batch(self.batch([row]), silent), "frames": [len(row["film"])]}

    def describe(self) -> Mapping[str, Any]:
        """The processor's settings, and the number of frames."""
        return {"processor": type(self.processor).__name__, "frames": self.frames, **_plain(self.processor.to_dict())}

    def sample(self) -> np.ndarray:
        """Six frames of a grey ramp, 40 x 48."""
        return np.stack([ImageSignal(self.processor).sample()] * 6)


def signal(modality: str, processor: Any, *, limit: int, channels: int = COLOURS) -> Signal:
    """The way into a tower of that modality. limit: the most tokens of a text, the frames of a film. channels: of a picture."""
    if isinstance(processor, Signal):
        return processor
    if modality == "image":
        return ImageSignal(processor, channels)
    if modality == "text":
        return TextSignal(processor, limit)
    if modality == "audio":
        return AudioSignal(processor)
    if modality == "video":
        return VideoSignal(processor, limit)
    raise ModelError("model.towers", f'no tower for "{modality}" can be fed yet.', "Its tower's processor must be a models.signals.Signal.")


def _takes_layout(processor: Any) -> bool:
    parameters = inspect.signature(processor.preprocess).parameters
    return "input_data_format" in parameters or any(one.kind == inspect.Parameter.VAR_KEYWORD for one in parameters.values())


def _padded(array: np.ndarray, length: int, longest: int) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if array.shape[0] != length or length == longest:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((longest - length, *tensor.shape[1:]))])


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain data: arrays (mel filters) follow from the rest and are left out."""
    return {name: _plain_value(value) for name, value in sorted(values.items()) if not isinstance(value, np.ndarray)}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _plain(cast("Mapping[str, Any]", value))
    if isinstance(value, list | tuple):
        return [_plain_value(inner) for inner in cast("Sequence[Any]", value)]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
