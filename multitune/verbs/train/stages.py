"""The stages of a run in which the same things move, and what each of them reads from the store in place of computing it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from multitune.core.finding import Finding

if TYPE_CHECKING:
    from multitune.core.protocols import Preparer
    from multitune.data.loader import StepBatches
    from multitune.data.split import Examples
    from multitune.models.features.attached import Source
    from multitune.models.features.contents import Contents
    from multitune.models.features.filling import Ahead, Counts, Features
    from multitune.models.features.measuring import Encoded
    from multitune.models.features.shards import Space
    from multitune.models.replay import Seam
    from multitune.tuning.ranks import Ranks
    from multitune.verbs.train.line import Line


@dataclass(frozen=True)
class Stage:
    """Planned steps `start` up to, not including, `stop`, in which the same things move. seams: of the cuts that are kept, by tower.

    moving: the public names of what moves.
    """

    start: int
    stop: int
    seams: Mapping[str, Seam] = field(default_factory=dict)
    moving: frozenset[str] = frozenset()


class Stages:
    """What a run keeps, stage by stage: the family reads what the stage that was entered last has.

    A stage is opened when a step or an evaluation first asks for it, with the weights as they are then: its key covers them, so what
    moved before and is still now is another row of the store than what it was at the start. begun: rows that were encoded before, by the
    folder of their space; where the key of a stage names that folder, they are what it would encode. Where an earlier stage moves nothing
    that a later one does not move, the forward that encodes its rows writes down what the later one will ask for.
    """

    def __init__(
        self, line: Line, stages: tuple[Stage, ...], ranks: Ranks, *, begun: Mapping[str, Sequence[Encoded]] | None = None
    ) -> None:
        from multitune.models.features.filling import Counts

        self._line, self.stages, self._ranks = line, stages, ranks
        self.counts: Counts = Counts()
        self.findings: list[Finding] = []
        self._contents: Contents | None = None
        self._live: list[Source] = []
        self._spaces: dict[Path, Space] = {}
        self._early: set[tuple[str, str]] = set()
        self._seen: set[tuple[str, str]] = set()
        self._at, self._features, self._begun = -1, None, begun or {}

    @property
    def keeps(self) -> bool:
        """Whether any stage keeps anything."""
        return any(stage.seams for stage in self.stages)

    def place(self, step: int) -> int:
        """Which stage rules a step: by the plan, or earlier where a control brought it forward."""
        moment = self._line.scope.clock.moment(step)
        return next((place for place, stage in enumerate(self.stages) if moment < stage.stop), len(self.stages) - 1)

    def now(self) -> Features | None:
        """The features of the stage that the model is in, opened and filled where it was not; None where it keeps nothing."""
        self.enter(self._line.scope.step)
        return self._features

    def enter(self, step: int, keys: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Open the stage of a step and encode what it lacks, unless it is open. keys: of its spaces, where they are known, by cut.

        Raises: WriteFault if the machine does not take a shard; Fault for a stored row that the model no longer gives.
        """
        place = self.place(step)
        if place != self._at:
            self._open(place, step, keys or {})

    @contextmanager
    def attached(self) -> Generator[None]:
        """Inside, the family reads what the stage that was entered last keeps."""
        from multitune.models.features.attached import attached

        with attached(cast("Any", self._line.family), self._live):
            yield

    @contextmanager
    def running(self) -> Generator[Preparer]:
        """Inside, the family runs on what the present stage keeps; gives the preparer of rows that it then takes."""
        features = self.now()
        if features is None:
            yield self._line.family.preparer
            return
        with features.attached():
            yield features.preparer()

    def rest(self, step: int) -> None:
        """The model has the weights that it had after so many steps."""
        self._line.scope.step = max(step - 1, 0)

    def steps(self, start: int, stop: int) -> Iterator[StepBatches]:
        """The loader's steps, each prepared as its stage takes it; a stage is entered on all ranks alike."""
        step = start
        while step < stop:
            place = self.place(step)
            self._enter_together(step)
            preparer = self._line.family.preparer if self._features is None else self._features.preparer()
            loader = self._line.loader.over(preparer, held=self._features is not None and self._features.whole)
            with closing(loader.steps(step, min(stop, self.stages[place].stop))) as batches:
                for batch in batches:
                    yield batch
                    step = batch.step + 1
                    if self.place(step) != place:
                        break

    def _enter_together(self, step: int) -> None:
        self._ranks.on_main(lambda: self.enter(step))
        if not self._ranks.main:
            self.enter(step)

    def _open(self, place: int, step: int, keys: Mapping[str, Mapping[str, Any]]) -> None:
        from multitune.verbs.train.storing import every_sample

        self._live.clear()
        self._at, self._features, stage = place, None, self.stages[place]
        if stage.seams:
            found = self._opened(stage.seams, keys)
            if self._ranks.main:
                found.begin(self._begun)
                found.fill(every_sample(self._line, step, stage.stop, first=place == 0), ahead=self._ahead(place, keys))
                found.check()
            self._live += found.sources
            self._features = found

    def _opened(self, seams: Mapping[str, Seam], keys: Mapping[str, Mapping[str, Any]]) -> Features:
        """The store for these cuts, with what the run knows and counts."""
        from multitune.models.features.filling import Features
        from multitune.verbs.train.storing import folder_of, wanted

        line = self._line
        found, findings = Features.open(
            line.family,
            seams,
            root=folder_of(line),
            asked=wanted(line),
            seed=line.planned.plan["run.seed"],
            keys=keys,
            spaces=self._spaces,
        )
        self._spaces |= {source.space.folder: source.space for source in found.sources}
        found.counts, found.contents, found.early = self.counts, self._contents or found.contents, self._early
        found.seen = self._seen
        self._contents, self.findings = found.contents, [*self.findings, *findings]
        return found

    def _ahead(self, place: int, keys: Mapping[str, Mapping[str, Any]]) -> list[Ahead]:
        """What later stages will ask for that the forwards of this one pass: cuts of its towers, of weights that stay until then.

        Stages that keep the same cut ask for one space together.
        """
        from multitune.verbs.train.storing import every_sample

        here, moved = self.stages[place], frozenset[str]()
        ahead: dict[Path, Ahead] = {}
        for before, later in pairwise(self.stages[place:]):
            moved |= before.moving
            if moved <= later.moving:
                seams = {tower: seam for tower, seam in later.seams.items() if tower in here.seams and seam.cut != here.seams[tower].cut}
                if seams:
                    for one in self._opened(seams, keys).ahead(every_sample(self._line, later.start, later.stop, first=False)):
                        folder = one.source.space.folder
                        ahead[folder] = one.beside(ahead[folder]) if folder in ahead else one
        return [*ahead.values()]

    def fill(self, rows: Examples) -> None:
        """Encode what these rows lack in the present stage."""
        from multitune.verbs.train.storing import samples

        features = self.now()
        if features is not None:
            features.fill(samples(rows, range(len(rows))))
