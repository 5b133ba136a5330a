"""What both sides are asked: one file a comparison and seed, with the rows, the weights and every number of the tuning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from multitune.core import catalog
from multitune.models.where import BASES

Kind = Literal["classification", "retrieval"]
SPLITS = ("train", "test", "elsewhere")
SAID = ("shape", "colour", "timbre", "contour")


@dataclass(frozen=True)
class Comparison:
    """One peer, on one task. score: the figure that decides. rows: of the training set, of each measured one.

    pool: which of the tower's tokens the peer's model reads. symmetric: whether documents look for queries too; the peer's do not.
    more: other ways of ours, shown beside it: name -> what it changes in the job.
    """

    peer: str
    kind: Kind
    title: str
    about: str
    score: str
    base: str
    rows: tuple[int, int]
    steps: int
    batch: int
    lr: float
    pool: str
    symmetric: bool = False
    more: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


COMPARISONS = (
    Comparison(
        peer="hf-trainer",
        kind="classification",
        title="HF Trainer",
        about="the shape in a picture; 400 training rows of chimes base, measured on 800 of base and 800 of target",
        score="accuracy",
        base="tiny/image",
        rows=(400, 800),
        steps=200,
        batch=32,
        lr=3e-4,
        pool="first",
        more={"multitune-mean": {"pool": "mean"}},
    ),
    Comparison(
        peer="sentence-transformers",
        kind="retrieval",
        title="sentence-transformers",
        about="a caption finds its attributes, spelled backwards, among 800; 400 training rows of chimes base",
        score="r_at_1",
        base="tiny/text",
        rows=(400, 800),
        steps=60,
        batch=32,
        lr=3e-4,
        pool="mean",
        more={"multitune-symmetric": {"symmetric": True}},
    ),
)


@dataclass(frozen=True)
class Job:
    """A job on disk: `job.json` in `folder`, beside `train.jsonl`, `test.jsonl` and `elsewhere.jsonl`."""

    folder: Path
    kind: Kind
    score: str

    @property
    def path(self) -> Path:
        """The file that both sides read."""
        return self.folder / "job.json"

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split, in order."""
        return [json.loads(line) for line in (self.folder / f"{split}.jsonl").read_text("utf-8").splitlines()]


def written(run: Path, comparison: Comparison, seed: int) -> Job:
    """The job of a comparison and a seed, its files written."""
    job = Job(run / comparison.peer / str(seed), comparison.kind, comparison.score)
    job.folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = (json.dumps(row) for row in rows_of(comparison, split, seed))
        (job.folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    job.path.write_text(json.dumps(asked(comparison, seed, job.folder), indent=1) + "\n", "utf-8")
    return job


def asked(comparison: Comparison, seed: int, folder: Path) -> dict[str, Any]:
    """Every number of the tuning: the peer's documented schedule (linear, a tenth of warmup), one optimizer for both."""
    return {
        "kind": comparison.kind,
        "seed": seed,
        "pool": comparison.pool,
        "symmetric": comparison.symmetric,
        "model": str(BASES / comparison.base),
        "steps": comparison.steps,
        "batch": comparison.batch,
        "lr": comparison.lr,
        "warmup": comparison.steps // 10,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "clip_norm": 1.0,
        "width": 128,
        "splits": {split: str(folder / f"{split}.jsonl") for split in SPLITS},
    }


def rows_of(comparison: Comparison, split: str, seed: int) -> Iterator[Mapping[str, Any]]:
    """Rows as both sides read them; training rows are other ones with each seed, measured rows always the same."""
    count = comparison.rows[split != "train"]
    options = {"rows": count, "seed": 100 + seed if split == "train" else 7, "domain": "target" if split == "elsewhere" else "base"}
    table = catalog.find("source", "chimes", options | {"parts": ["image"] if comparison.kind == "classification" else []}).build().read()
    for index in range(len(table)):
        row = table.row(index)
        if comparison.kind == "classification":
            assert table.root is not None
            yield {"id": row["id"], "image": str(table.root / row["image"]), "label": row["shape"]}
        else:
            yield {"id": row["id"], "query": row["caption"], "document": " ".join(row[name][::-1] for name in SAID)}
