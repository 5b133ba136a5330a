"""Encodes what the store lacks, in groups that keep a row's bits its own, and recomputes a few of the rows that it had."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multitune.core import store
from multitune.core.errors import Fault, WriteFault
from multitune.core.finding import Finding
from multitune.core.protocols import Memo, Prediction, Sample
from multitune.core.randomness import derive
from multitune.data.decode import BadPart, modality
from multitune.models.features import shards
from multitune.models.features.attached import Source, attached
from multitune.models.features.contents import Contents
from multitune.models.features.keys import Asked, foreign, key_parts
from multitune.models.features.measuring import Encoded
from multitune.models.features.preparing import Stand, StoredPreparer
from multitune.models.features.shards import TYPES, Kept, Space, rounded
from multitune.models.features.upkeep import MEDIA, used
from multitune.models.features.ways import content as content_of
from multitune.models.features.ways import only, still, ways
from multitune.models.predictor import GROUP_ROWS, Forgetful, Predictor, Row
from multitune.models.replay import Seam, Stored, encode_at, encode_rows, probe_rows

SHARD_BYTES = 64 << 20
SHARD_ROWS = 1024
CHECKED = 4
TOLERANCE = 1e-5


@dataclass
class Counts:
    """What a run found and did. hits: rows that were there before it asked, encoded: rows that it added; each row of a tower counts once.

    bytes: written. rounding: the largest error of the stored type, in standard deviations of a row's features.
    """

    hits: int = 0
    encoded: int = 0
    bytes: int = 0
    checked: int = 0
    rounding: float = 0.0

    def figures(self) -> dict[str, float]:
        """By name: `features/hits` and so on."""
        return {f"features/{name}": float(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Ahead:
    """What will be asked for later at another cut of a tower: a forward that passes it writes it down. rows: their contents."""

    source: Source
    rows: frozenset[str]

    def beside(self, other: Ahead) -> Ahead:
        """What the two ask for of one space."""
        return replace(self, rows=self.rows | other.rows)

    def lacks(self, content: str) -> bool:
        """Whether a row is still to be encoded there."""
        return content in self.rows and content not in self.source.space


@dataclass
class Features:
    """The features of a run: fills the store with what rows lack, and lets a family run on it.

    early: rows that the run itself wrote before they were asked for, by folder and content; they are no hits. seen: rows that it asked for,
    likewise: each counts once.
    """

    family: Any
    root: Path
    sources: tuple[Source, ...]
    contents: Contents
    seed: int = 0
    counts: Counts = field(default_factory=Counts)
    early: set[tuple[str, str]] = field(default_factory=set)
    seen: set[tuple[str, str]] = field(default_factory=set)
    _begun: dict[tuple[str, str], Encoded] = field(default_factory=dict)
    _hits: dict[str, list[tuple[int, str, Sample]]] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        family: Any,
        seams: Mapping[str, Seam],
        *,
        root: Path,
        asked: Asked,
        seed: int = 0,
        keys: Mapping[str, Mapping[str, Any]] | None = None,
        spaces: Mapping[Path, Space] | None = None,
    ) -> tuple[Features, list[Finding]]:
        """The store in a folder for cuts that hold, by tower; shards that do not hold are set aside, with findings.

        keys: of spaces that are known, by the paths of their cuts. spaces: those that were opened before, by their folders: only what is
        new in them is hashed. Raises: Fault if the folder does not take a file.
        """
        sources: list[Source] = []
        findings: list[Finding] = []
        for tower, seam in seams.items():
            way = ways(family.preparer)[tower]
            parts = (keys or {}).get(seam.cut.path) or space_key(family, seam, asked=asked)
            folder = root / folder_name(parts)
            shards.about(folder, {"tower": tower, "cut": seam.cut.name, "modality": way.modality, "key": parts})
            space = spaces[folder] if spaces is not None and folder in spaces else Space(folder, asked.type)
            findings += space.look(verify=True)
            used(folder)
            sources.append(Source(Stand(tower, way.parts, way.inputs, way.always, folder, asked.type), way, seam, space))
        return cls(family, root, tuple(sources), Contents(root / MEDIA), seed), findings

    @property
    def whole(self) -> bool:
        """Whether everything that the family reads of a row is kept: what is prepared of it is then small, and always the same."""
        return set(self.family.needs.parts) <= {part for source in self.sources for part in source.stand.parts}

    def preparer(self) -> StoredPreparer:
        """The family's preparer over this store; in this process it sees at once what is added."""
        made = StoredPreparer(self.family.preparer, [source.stand for source in self.sources], self.root / MEDIA)
        made.share(self.contents, {source.stand.tower: source.space for source in self.sources})
        return made

    @contextmanager
    def attached(self) -> Generator[None]:
        """Inside, the family runs on stored features where a batch names some."""
        with attached(self.family, self.sources):
            yield

    def begin(self, encoded: Mapping[str, Sequence[Encoded]]) -> None:
        """Rows that were encoded before, by the folder of their space: `fill` keeps them where they stand. Others are passed over."""
        for source in self.sources:
            rows = encoded.get(source.space.folder.name, ())
            self._begun |= {(source.stand.tower, one.content): one for one in rows if one.content}

    def begun(self, tower: str, content: str) -> Encoded | None:
        """A row that was encoded before, once."""
        return self._begun.pop((tower, content), None)

    def fill(self, samples: Iterable[Sample], memo: Memo | None = None, *, ahead: Sequence[Ahead] = ()) -> None:
        """Encode what these rows lack, and write it down. Rows that cannot be read are passed over: who asks for them finds out.

        ahead: what is written down too where a row that is encoded passes it, and the machine takes it.
        Raises: Fault if the machine does not take a shard; what was written before stays.
        """
        fillings = [
            _Filling(self, source, memo or Forgetful(), [one for one in ahead if one.source.stand.tower == source.stand.tower])
            for source in self.sources
        ]
        for sample in samples:
            for filling in fillings:
                filling.take(sample)
        for filling in fillings:
            filling.finish()
        self.contents.flush()

    def check(self) -> None:
        """Encode a few of the rows again that were there before, and compare.

        Raises: Fault naming a row that is not what it was, beyond the tolerance.
        """
        for source in self.sources:
            taken = [(content, sample) for _, content, sample in self._hits.pop(source.stand.tower, [])]
            ready = [(content, sample, self.prepared(sample, source, Forgetful())) for content, sample in taken]
            there = [(content, sample, row) for content, sample, row in ready if row is not None]
            few = encode_rows(self.family, source.seam, [row for _, _, row in there], group_rows=CHECKED)
            for (content, sample, row), again in zip(there, few, strict=True):
                if again is not None:
                    self.counts.checked += 1
                    kept = source.space.read(content)
                    if _apart(kept, again):  # in a group of another size bits may differ: what counts is one like that which wrote it
                        (whole,) = encode_rows(self.family, source.seam, [row])
                        _refuse(source, sample.id, kept, again if whole is None else whole)

    def prepared(self, sample: Sample, source: Source, memo: Memo) -> Row | None:
        """The row with nothing but the parts of one tower; None where one cannot be read."""
        try:
            return source.way.alone(only(sample, source.stand.parts), memo)
        except BadPart:
            return None

    def ahead(self, samples: Iterable[Sample]) -> list[Ahead]:
        """What these rows will ask for here, for the `fill` of an earlier stage; nothing is counted."""
        asked: dict[str, set[str]] = {source.stand.tower: set() for source in self.sources}
        for sample in samples:
            for source in self.sources:
                if source.stand.asked(sample):
                    asked[source.stand.tower].add(content_of(sample, source.stand.parts, self.contents.of))
        return [Ahead(source, frozenset(asked[source.stand.tower] - {""})) for source in self.sources]

    def lacks(self, source: Source, content: str, sample: Sample) -> bool:
        """Whether a row is to be encoded; counts it, once."""
        at, there = (source.space.folder.name, content), content in source.space
        if at not in self.seen:
            self.seen.add(at)
            self.counts.hits += there and at not in self.early
            if there:
                kept = self._hits.setdefault(source.stand.tower, [])
                heapq.heappush(kept, (-derive("check", self.seed, content), content, sample))
                if len(kept) > CHECKED:
                    heapq.heappop(kept)
        return not there


def alone(family: Any, sample: Sample, tower: str, memo: Memo) -> Row | None:
    """The row with nothing but the parts of one tower; None where one of them is not there or cannot be read."""
    way = ways(family.preparer)[tower]
    try:
        return way.alone(only(sample, way.parts), memo) if set(way.parts) <= set(sample.parts) else None
    except BadPart:
        return None


def folder_name(parts: Mapping[str, Any]) -> str:
    """The folder of a space in its store, by the parts of its key."""
    return store.key(parts)[:40]


def space_key(family: Any, seam: Seam, *, asked: Asked) -> dict[str, Any]:
    """The parts of the key of a cut's space, with the weights as they are."""
    way = ways(family.preparer)[seam.cut.tower]
    plugins = foreign([way, *vars(way).values(), modality(way.modality)])
    return key_parts(family, seam, preparing=way.describe(), row=probe_rows(family, 1)[0], asked=asked, plugins=plugins)


class _Filling:
    """Rows of one tower on their way into its space, and into those of later stages."""

    def __init__(self, features: Features, source: Source, memo: Memo, ahead: Sequence[Ahead] = ()) -> None:
        self._features, self._source, self._memo, self._ahead = features, source, memo, ahead
        self._waiting: dict[Hashable, list[tuple[str, Sample, Row]]] = {}
        self._made: dict[Path, tuple[Source, dict[str, Kept]]] = {}
        self._bytes = 0
        self._asked: set[str] = set()

    def take(self, sample: Sample) -> None:
        stand = self._source.stand
        content = content_of(sample, stand.parts, self._features.contents.of) if stand.asked(sample) else ""
        if not content or content in self._asked or not self._features.lacks(self._source, content, sample):
            return
        before = self._features.begun(stand.tower, content)
        row = self._features.prepared(sample, self._source, self._memo) if before is None else before.row
        if row is None:
            return
        self._asked.add(content)
        if before is not None:
            self._keep(self._source, content, before.sample, row, before.stored)
            return
        group = self._waiting.setdefault(self._features.family.preparer.bucket(row), [])
        group.append((content, sample, row))
        if len(group) == GROUP_ROWS:
            self._encode(group)
            group.clear()

    def finish(self) -> None:
        for group in self._waiting.values():
            if group:
                self._encode(group)
        self._write()

    def _encode(self, group: Sequence[tuple[str, Sample, Row]]) -> None:
        later = [one for one in self._ahead if any(one.lacks(content) for content, _, _ in group)]
        sources = [self._source, *(one.source for one in later)]
        made = encode_at(self._features.family, [source.seam for source in sources], [row for _, _, row in group])
        for source, rows in zip(sources, made, strict=True):
            wanted = next((one for one in later if one.source is source), None)
            for (content, sample, row), stored in zip(group, rows, strict=True):
                if stored is not None and (wanted is None or wanted.lacks(content)):
                    self._keep(source, content, sample, row, stored)

    def _keep(self, source: Source, content: str, sample: Sample, row: Row, stored: Stored) -> None:
        """Hold an encoded row until it is written, unless a file of its changed meanwhile."""
        features = self._features
        if not still(sample, source.stand.parts, content, features.contents):
            return
        self._made.setdefault(source.space.folder, (source, {}))[1][content] = Kept(stored, source.way.light(row, source.silent))
        self._bytes += stored.num_bytes
        features.counts.rounding = max(features.counts.rounding, _rounding(stored, TYPES[source.space.type]))
        if self._bytes >= SHARD_BYTES or len(self._made[source.space.folder][1]) >= SHARD_ROWS:
            self._write()

    def _write(self) -> None:
        counts, made = self._features.counts, [*self._made.values()]
        self._made, self._bytes = {}, 0
        for source, rows in made:
            try:
                counts.bytes += source.space.write(rows)
            except WriteFault:
                if source is self._source:
                    raise
                self._ahead = ()  # the stage that asks for them says what it cannot write
                continue
            counts.encoded += len(rows)
            if source is not self._source:
                self._features.early |= {(source.space.folder.name, content) for content in rows}


class FillingPredictor(Predictor):
    """A predictor that runs on stored features; it encodes what the samples that it is asked for lack, first."""

    def __init__(
        self,
        features: Features,
        *,
        generate: Mapping[str, Any] | None = None,
        memo: Memo | None = None,
        thresholds: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__(features.family, generate=generate, memo=memo, thresholds=thresholds)
        self.preparer = features.preparer()
        self._features = features

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """One prediction for each sample, in their order.

        Raises: BadPart for a sample that cannot be prepared; Fault if the machine does not take a shard.
        """
        self._features.fill(samples, self._memo)
        return super().predict(samples)

    def stream(self, samples: Iterable[Sample]) -> Iterator[tuple[int, Prediction]]:
        """Place and prediction, as groups fill, of samples whose features are there."""
        with self._features.attached():
            yield from super().stream(samples)


def _rounding(stored: Stored, type: torch.dtype) -> float:
    if type == torch.float32:
        return 0.0
    numbers = [tensor.double() for tensor in stored.tensors if tensor.numel() and tensor.is_floating_point()]
    errors = [(rounded(tensor.float(), type).double() - tensor).abs().max() / _spread(tensor) for tensor in numbers]
    return max(map(float, errors), default=0.0)


def _refuse(source: Source, row: str, kept: Stored, again: Stored) -> None:
    """Raises: Fault where what is kept of a row is not what the model gives."""
    found = _apart(kept, again)
    if found:
        raise Fault(
            f"{source.space.folder}: the stored features of the {source.parts} of row {row} are not what the model gives now "
            f"({found}). Look with `multitune store verify`, or train with features.store=off."
        )


def _apart(kept: Stored, again: Stored) -> str:
    """How far what is kept is from what the model gives, where that is more than is tolerated; empty where it is not."""
    for before, now in zip(kept.tensors, again.tensors, strict=True):
        if before.shape != now.shape:
            apart, allowed = float("inf"), 0.0
        elif not now.numel() or not now.is_floating_point():
            apart, allowed = float(not torch.equal(before, now.to(before.dtype))), 0.0
        else:
            coarse = torch.finfo(before.dtype).eps * float(now.abs().max()) if before.dtype != now.dtype else 0.0
            apart = float((before.double() - now.double()).abs().max())
            allowed = TOLERANCE * _spread(now.double()) + coarse
        if not apart <= allowed:
            return f"{apart:.1e} apart, {allowed:.1e} are tolerated"
    return ""


def _spread(tensor: Tensor) -> float:
    return max(float(tensor.std()) if tensor.numel() > 1 else float(tensor.abs().max()), torch.finfo(torch.float32).tiny)
