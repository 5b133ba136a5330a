"""The one object under evaluate, predict and serve: samples in, predictions out, each row's bits a function of the row alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from multitune.core.protocols import Batch, Category, Embedding, Family, Labels, Memo, Number, Prediction, Preparer, Sample, Text
from multitune.core.protocols import Predictor as Asked
from multitune.data.decode import BadPart, unreadable

GROUP_ROWS = 16
Row = Mapping[str, Any]


class Forgetful:
    """A memo that remembers nothing."""

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """Made anew."""
        return make()


class Predictor:
    """Runs a family over samples in groups of a fixed number of rows that pad each other in no way; the last is filled by repetition.

    memo: keeps what was prepared; by default nothing. thresholds: answer -> label -> the probability from which on it is given; a half for
    answers that are not there. The family stays as it was: eval mode holds only inside a call.
    """

    def __init__(
        self,
        family: Family | Any,
        *,
        group_rows: int = GROUP_ROWS,
        generate: Mapping[str, Any] | None = None,
        memo: Memo | None = None,
        thresholds: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.family = family
        self.needs = family.needs
        self.preparer: Preparer = family.preparer
        self.group_rows = group_rows
        self.generate = dict(generate or {})
        self.thresholds = dict(thresholds or {})
        self._memo: Memo = memo if memo is not None else Forgetful()

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """One prediction for each sample, in their order.

        Raises: BadPart for a sample that cannot be prepared.
        """
        made = dict(self.stream(samples))
        return [made[place] for place in range(len(samples))]

    def stream(self, samples: Iterable[Sample]) -> Iterator[tuple[int, Prediction]]:
        """Place and prediction, as groups fill: at most `group_rows` prepared rows are held for each padded shape."""
        waiting: dict[Hashable, list[tuple[int, Row]]] = {}
        for place, sample in enumerate(samples):
            row = self.preparer.prepare(sample, self._memo)
            group = waiting.setdefault(self.preparer.bucket(row), [])
            group.append((place, row))
            if len(group) == self.group_rows:
                yield from self._run(group)
                group.clear()
        for group in waiting.values():
            if group:
                yield from self._run(group)

    def _run(self, group: Sequence[tuple[int, Row]]) -> list[tuple[int, Prediction]]:
        rows = [row for _, row in group]
        filled = [*rows, *[rows[-1]] * (self.group_rows - len(rows))]
        with _at_rest(cast("nn.Module", self.family)) as device:
            predictions = self.family.predict(moved(self.preparer.collate(filled), device), generate=self.generate)
        return [(place, self._labelled(prediction)) for (place, _), prediction in zip(group, predictions, strict=False)]

    def _labelled(self, prediction: Prediction) -> Prediction:
        """The prediction with its labels by the thresholds."""
        answers = dict(prediction.answers)
        for name, given in prediction.answers.items():
            if isinstance(given, Labels) and name in self.thresholds:
                own = self.thresholds[name]
                answers[name] = replace(given, value=tuple(label for label, score in given.scores.items() if score >= own[label]))
        return replace(prediction, answers=answers) if self.thresholds else prediction


@dataclass(frozen=True)
class Replies:
    """What came of some samples, by their place among them: predictions, and for the others why there is none."""

    predictions: Mapping[int, Prediction]
    causes: Mapping[int, BadPart]


def answered(predictor: Asked, samples: Sequence[Sample]) -> Replies:
    """The predictions of all samples that can be read; the others' causes. A row's bits do not depend on those left out."""
    return _answered(predictor, dict(enumerate(samples)))


def _answered(predictor: Asked, samples: Mapping[int, Sample]) -> Replies:
    if not samples:
        return Replies({}, {})
    try:
        return Replies(dict(zip(samples, predictor.predict(list(samples.values())), strict=True)), {})
    except BadPart as bad:
        causes = {place: cause for place, sample in samples.items() if (cause := unreadable(sample)) is not None}
        if not causes and len(samples) == 1:
            causes = {place: bad.named(sample) for place, sample in samples.items()}
    good = [place for place in samples if place not in causes]
    halves = (good,) if causes else (good[: len(good) // 2], good[len(good) // 2 :])
    predictions: dict[int, Prediction] = {}
    for half in halves:
        found = _answered(predictor, {place: samples[place] for place in half})
        predictions |= found.predictions
        causes |= found.causes
    return Replies(predictions, causes)


def moved(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors on a device."""

    def move(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    inputs = {part: move(tensors) for part, tensors in batch.inputs.items()}
    return Batch(batch.ids, inputs, move(batch.answers), move(batch.presence), move(batch.teacher), batch.stored, move(batch.contents))


def plain(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain data, for JSON and for comparing."""
    return {"id": prediction.id, "answers": {name: _plain(answer) for name, answer in prediction.answers.items()}}


def _plain(answer: Category | Labels | Number | Text | Embedding) -> dict[str, Any]:
    if isinstance(answer, Embedding):
        return {"kind": answer.kind, "value": [float(number) for number in answer.value]}
    values = vars(answer) | ({"value": list(answer.value)} if isinstance(answer, Labels) else {})
    return {
        "kind": answer.kind,
        **{name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items() if name != "kind"},
    }


def rested(module: nn.Module) -> list[nn.Module]:
    """Put a module into eval mode; gives those inside that were in training mode. What is at rest already is not switched."""
    training = [inner for inner in module.modules() if inner.training]
    if any(type(inner).train is not nn.Module.train for inner in training):
        module.eval()
    for inner in training:
        inner.training = False
    return training


@contextmanager
def _at_rest(family: nn.Module) -> Generator[torch.device]:
    """Eval mode and no gradients inside; each module's own mode afterwards."""
    device = next((parameter.device for parameter in family.parameters()), torch.device("cpu"))
    training = rested(family)
    try:
        with torch.inference_mode():
            yield device
    finally:
        for module in training:
            module.training = True
