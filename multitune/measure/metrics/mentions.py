"""Whether a written answer names the right values: `mentions: {columns: [shape, colour]}`.

A row counts for a column where the text has the column's value as a whole word and no other value that the column has anywhere in the
split; letters' case does not matter, and a value of several words is looked for before the words it is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import DataError, did_you_mean, one_of
from multitune.core.protocols import AnswerNeed, ByRow, Figure, Metric, Prediction, Text
from multitune.measure.bootstrap import interval_of_share
from multitune.measure.paired import Share

SERVES = ("text",)


class Options(catalog.Options):
    """columns: whose values the text must name; together they give the figure `shape_and_colour`."""

    columns: tuple[str, ...] = Field(min_length=1, json_schema_extra=catalog.COLUMN)


class MentionsMetric(Metric):
    """Keeps what was said and the true values, since a column's words are known only at the end."""

    def __init__(self, answer: str, columns: tuple[str, ...]) -> None:
        self.primary = "_and_".join(columns)
        self._answer, self._columns = answer, columns
        self._said: list[str] = []
        self._true: list[tuple[str, ...]] = []
        self._seen: set[str] = set()

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Add one row; a row that lacks one of the columns is not counted."""
        said = prediction.answers[self._answer]
        self._seen.update(truth)
        if not isinstance(said, Text) or any(column not in truth for column in self._columns):
            return
        self._said.append(said.value)
        self._true.append(tuple(str(truth[column]) for column in self._columns))

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """The share of rows right in each column, then in all of them.

        Raises: DataError if no row has the columns.
        """
        if not self._seen:
            return
        if not self._true:
            missing = next((column for column in self._columns if column not in self._seen), self._columns[0])
            found = f'no row has the column "{missing}"; there are {one_of(self._seen)}.'
            raise DataError("evaluate.metrics.mentions.columns", found, did_you_mean(missing, sorted(self._seen)))
        for name, hits in self._shares().items():
            low, high = interval_of_share(hits, np.ones(len(hits), np.int64), draws=draws, seed=seed)
            yield Figure(name, float(hits.mean()), low, high, drawn=draws > 0)

    def by_row(self) -> Mapping[str, ByRow]:
        """The share of rows right in each column, then in all of them."""
        return {name: Share(hits) for name, hits in self._shares().items()} if self._true else {}

    def _shares(self) -> dict[str, NDArray[np.bool_]]:
        shares = {column: self._hits(place) for place, column in enumerate(self._columns)}
        return shares | ({self.primary: np.logical_and.reduce(list(shares.values()))} if len(shares) > 1 else {})

    def _hits(self, place: int) -> NDArray[np.bool_]:
        true = [row[place].casefold() for row in self._true]
        words = sorted(set(true), key=lambda word: (-len(word), word))
        pattern = re.compile(r"(?<!\w)(?:" + "|".join(re.escape(word) for word in words) + r")(?!\w)")
        return np.array([set(pattern.findall(said.casefold())) == {word} for said, word in zip(self._said, true, strict=True)])


def build(options: Options, answer: str, need: AnswerNeed) -> MentionsMetric:
    """The metric of one text answer."""
    return MentionsMetric(answer, options.columns)
