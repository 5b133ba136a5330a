"""Does the embedded base help on real scans? Tuned from `tiny/image`, against a logistic regression and against no base.

Three seeds, and with each another split (60, 10 and 30 %). The logistic regression reads the raw pixels of the same split; its C is
found by cross-validation on train and valid, on which it is then trained. `scratch` is the same recipe from random weights.
`margin` is what tuning is above the logistic regression, in points; ok: at least 1.5.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import multitune
from multitune.core.ledger import Ledger
from multitune.core.recipe import read_recipe
from multitune.data import plan as data_plan

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "digits.yaml"
SEEDS = (0, 1, 2)
TARGET_POINTS = 1.5
QUIET = ["evaluate.intervals=0", "evaluate.baselines=false"]
RANDOM = "model.towers.image={pretrained: tiny/image, weights: random}"


def measure(run: Path, *, fresh: bool) -> tuple[dict[str, float], bool]:
    """Mean accuracies over the seeds, each seed's own, and whether the margin reaches the target."""
    found: dict[str, list[float]] = {"accuracy": [], "logistic": [], "scratch": []}
    for seed in SEEDS:
        overrides = [f"seed={seed}", f"data.split.seed={seed}", *QUIET]
        found["logistic"].append(logistic(overrides))
        for name, more in (("accuracy", []), ("scratch", [RANDOM])):
            result = multitune.train(RECIPE, overrides=[*overrides, *more], run=run / f"{name}-{seed}", fresh=fresh)
            found[name].append(result.figures["test/accuracy"])
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.4f}" for name, values in found.items()), file=sys.stderr, flush=True)
    figures = {name: statistics.mean(values) for name, values in found.items()}
    figures["margin"] = 100 * (figures["accuracy"] - figures["logistic"])
    figures |= {f"{name}/{seed}": values[place] for name, values in found.items() for place, seed in enumerate(SEEDS)}
    return figures, figures["margin"] >= TARGET_POINTS


def logistic(overrides: list[str]) -> float:
    """The accuracy of a logistic regression on the test rows of the recipe's own split, fitted on its train and valid rows."""
    examples = data_plan.outline(read_recipe(RECIPE, overrides), Ledger()).examples
    pixels, truth = by_id()
    train, test = ([name for split in splits for name in examples[split].ids] for splits in (("train", "valid"), ("test",)))
    model = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5_000)),
        {"logisticregression__C": list(np.logspace(-3, 1, 9))},
        cv=5,
    )
    model.fit([pixels[name] for name in train], [truth[name] for name in train])
    return float(model.score([pixels[name] for name in test], [truth[name] for name in test]))


def by_id() -> tuple[dict[str, Any], dict[str, int]]:
    """The raw pixels (64,) and the digit of each row, by the id that the source `digits` gives it."""
    scans = load_digits()
    ids = [f"digit-{number:04d}" for number in range(len(scans.target))]
    return dict(zip(ids, scans.data, strict=True)), dict(zip(ids, scans.target.tolist(), strict=True))
