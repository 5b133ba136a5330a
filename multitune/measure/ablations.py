"""What each part is worth to a model that answers from several: the part left out, and the part taken from another row.

A figure without the part has its interval, and its cost beside it: how much worse the model is than with the part, from a paired bootstrap
over the same rows. `test/shuffled_image/accuracy`, and `test/shuffled_image/accuracy/cost` with `/low` and `/high`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from multitune.core.errors import DataError, ModelError
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Figure, Prediction, Sample
from multitune.core.randomness import generator
from multitune.data.split import Examples
from multitune.measure.paired import difference
from multitune.measure.tally import Named, Question, Tally

Change = Callable[[int, Sample], Sample]
COST = "cost"


@dataclass(frozen=True)
class Ablations:
    """Measures a model again with each part left out and each shuffled.

    parts: those that it reads. own: the tally of all rows as they are. draws, seed: of intervals; the shuffling has `shuffle`.
    """

    parts: Sequence[str]
    questions: Sequence[Question]
    own: Tally
    draws: int
    seed: int
    shuffle: int

    def figures(
        self,
        answered: Callable[[Change], Iterable[tuple[int, Sample, Prediction]]],
        examples: Examples,
        read: Sequence[int],
        findings: list[Finding],
    ) -> Iterator[Named]:
        """The primary figures of each variant, with their costs.

        answered: rows with predictions, each sample changed before the model sees it. read: the places of those rows. findings: gets what
        could not be measured.
        """
        for part in self.parts:
            for variant, change in ((f"without_{part}", _without(part)), (f"shuffled_{part}", self._shuffled(examples, read, part))):
                tally = Tally(self.questions)
                try:
                    for _, sample, prediction in answered(change):
                        tally.update(sample, prediction)
                except (ModelError, DataError) as error:
                    findings.append(Finding("no-ablation", Severity.INFO, variant, f"cannot be measured: {error.found}"))
                    continue
                yield from self._told(variant, tally)

    def _told(self, variant: str, tally: Tally) -> Iterator[Named]:
        with_it, without = self.own.by_row(), tally.by_row()
        for found in tally.figures(draws=self.draws, seed=self.seed):
            if not found.primary:
                continue
            yield replace(found, name=f"{variant}/{found.name}")
            if found.name in with_it and found.name in without and len(with_it[found.name][0]) == len(without[found.name][0]):
                pair = with_it[found.name][0], without[found.name][0]
                better, worse = pair if found.better == "higher" else pair[::-1]
                cost = difference(better, worse, draws=self.draws, seed=self.seed)
                figure = Figure(COST, cost.value, cost.low, cost.high, drawn=self.draws > 0)
                yield Named(f"{variant}/{found.name}/{COST}", figure, False, "lower")

    def _shuffled(self, examples: Examples, read: Sequence[int], part: str) -> Change:
        """Give each row the part of another row, by one cycle through all of them: no row keeps its own."""
        order = [read[place] for place in generator(self.shuffle, "shuffle", part).permutation(len(read))]
        donor = dict(zip(order, [*order[1:], *order[:1]], strict=True))

        def change(index: int, sample: Sample) -> Sample:
            taken = examples.sample(donor[index]).parts.get(part)
            rest = {name: value for name, value in sample.parts.items() if name != part}
            return replace(sample, parts=rest if taken is None else rest | {part: taken})

        return change


def _without(part: str) -> Change:
    def change(index: int, sample: Sample) -> Sample:
        return replace(sample, parts={name: value for name, value in sample.parts.items() if name != part})

    return change
