"""Writing an answer token by token, with Transformers' own `generate`: greedy, or sampled so that no row sees its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from multitune.core import catalog
from multitune.core.randomness import generator


class Generation(catalog.Options):
    """How answers are written; temperature 0 takes the likeliest token each time."""

    max_new_tokens: int = Field(default=32, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Written:
    """One row's tokens, the stop token not among them; score: mean log-probability per token, the stop token's among them."""

    tokens: list[int]
    score: float


class _Chooser(LogitsProcessor):
    """Decides each row's next token and keeps its log-probability under the model itself.

    A sample is the largest of logits plus Gumbel noise, which is drawn for each row alone from (seed, id).
    """

    def __init__(self, ids: Sequence[str], generation: Generation) -> None:
        self.log_probabilities: list[Tensor] = []
        self._warpers: list[LogitsProcessor] = []
        self._noise = [generator("generate", generation.seed, id) for id in ids] if generation.temperature else []
        if generation.temperature:
            self._warpers += [TemperatureLogitsWarper(generation.temperature)]
        if generation.temperature and generation.top_p < 1:
            self._warpers += [TopPLogitsWarper(generation.top_p)]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        likely = scores.log_softmax(-1)
        for warper in self._warpers:
            scores = warper(cast("torch.LongTensor", input_ids), cast("torch.FloatTensor", scores))
        if self._noise:
            drawn = torch.stack([torch.from_numpy(random.gumbel(size=scores.shape[-1])) for random in self._noise])
            scores = scores + drawn.to(scores)
        self.log_probabilities.append(likely.gather(1, scores.argmax(-1, keepdim=True))[:, 0])
        return scores


def write(
    generate: Callable[..., Any], inputs: Mapping[str, Any], ids: Sequence[str], *, generation: Generation, stop: Sequence[int]
) -> list[Written]:
    """Continue each row until one of `stop` or `max_new_tokens`.

    inputs: what the model's `generate` takes, padded on the left; `decoder_input_ids`, else `input_ids`, is what it continues.
    Whatever else the folder's generation_config.json asks for (a repetition penalty, say) holds.
    """
    chooser = _Chooser(ids, generation)
    config = GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        eos_token_id=list(stop),
        pad_token_id=stop[0],
        return_dict_in_generate=False,
    )
    sequences = cast("Tensor", generate(**inputs, generation_config=config, logits_processor=LogitsProcessorList([chooser])))
    continued = next((inputs[name] for name in ("decoder_input_ids", "input_ids") if name in inputs), None)
    prompt = 0 if continued is None else continued.shape[1]
    scores = torch.stack(chooser.log_probabilities, dim=1).tolist()
    return [_written(row, score, stop) for row, score in zip(sequences[:, prompt:].tolist(), scores, strict=True)]


def _written(row: list[int], scores: list[float], stop: Sequence[int]) -> Written:
    end = next((place for place, token in enumerate(row) if token in stop), len(row))
    counted = scores[: end + 1][: len(row)]
    return Written(row[:end], sum(counted) / len(counted))
