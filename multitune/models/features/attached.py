"""A family that runs on stored features: where a batch names them, they are put in for running the tower."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from multitune.core.errors import Fault
from multitune.core.protocols import Batch, Features, Outputs, Prediction
from multitune.models.features.light import blanked
from multitune.models.features.preparing import Stand
from multitune.models.features.shards import Space
from multitune.models.features.ways import Way
from multitune.models.replay import Seam, replay
from multitune.models.replay.replaying import emptied


@dataclass(frozen=True)
class Source:
    """The features of one tower: where they stand, how its parts come to it, the seam of its cut, and the space that holds them."""

    stand: Stand
    way: Way
    seam: Seam
    space: Space

    @property
    def silent(self) -> tuple[str, ...]:
        """The names of the tower's inputs that only feed the cut."""
        return tuple(name for part, name in self.seam.blank if part == self.stand.inputs)

    @property
    def parts(self) -> str:
        """The parts that the tower reads, for people."""
        return " and ".join(self.stand.parts) or "prompt"


class _Replaying:
    """What a family's own methods are overlaid with: those that take a batch put in the features that it names."""

    features_of_run: Sequence[Source]

    def forward(self, batch: Batch) -> Outputs:
        with inside(self, batch, self.features_of_run) as given:
            return super().forward(given)  # type: ignore[misc]

    def encode(self, batch: Batch) -> Features:
        with inside(self, batch, self.features_of_run) as given:
            return super().encode(given)  # type: ignore[misc]

    def join(self, features: Features, batch: Batch) -> Outputs:
        with inside(self, batch, self.features_of_run) as given:
            return super().join(features, given)  # type: ignore[misc]

    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        with inside(self, batch, self.features_of_run) as given:
            return super().predict(given, generate=generate)  # type: ignore[misc]


@contextmanager
def attached(family: nn.Module, sources: Sequence[Source]) -> Generator[None]:
    """Inside, the family puts stored features in wherever a batch names some. Copies made inside do so too; twice is once.

    sources: as they are whenever a batch comes.
    """
    if isinstance(family, _Replaying):
        yield
        return
    own = type(family)
    family.__class__ = type(own.__name__, (_Replaying, own), {"features_of_run": sources})
    try:
        yield
    finally:
        family.__class__ = own


@contextmanager
def inside(family: Any, batch: Batch, sources: Sequence[Source]) -> Generator[Batch]:
    """The batch without what only feeds the cuts; forwards of it inside are given the stored features.

    Raises: Fault for a row whose features are gone.
    """
    if not batch.stored:
        yield batch
        return
    given = replace(batch, stored={})
    with ExitStack() as stack:
        for source in sources:
            contents = batch.stored[source.stand.tower]
            _refuse_lost(batch, source, contents)
            stack.enter_context(replay(family, source.seam, [source.space.read(content) if content else None for content in contents]))
            given = replace(given, inputs=blanked(given, source.seam.blank, emptied))
        yield given


def _refuse_lost(batch: Batch, source: Source, contents: Sequence[str]) -> None:
    lost = [id for id, content in zip(batch.ids, contents, strict=True) if content and content not in source.space]
    if lost:
        raise Fault(
            f"{source.space.folder}: the features of the {source.parts} of row {lost[0]} are gone, since the run began. "
            "Run the same command again: what is missing is encoded anew."
        )
