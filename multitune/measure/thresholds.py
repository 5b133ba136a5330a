"""From which probability on a label is given: a half, or for each label what is best on the validation split.

Chosen after training (`evaluate.thresholds: valid`), applied to the test split, kept in the artifact: what predicts and serves gives labels
by them. The threshold of a label is that of the highest F1 on the validation split, halfway between two scores; of equal ones the nearest
to a half.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune.core.errors import RecipeError
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Labels, Needs, Predictor
from multitune.core.recipe import EvaluateSpec
from multitune.data.split import Examples
from multitune.measure.evaluator import Evaluator
from multitune.measure.report import Report

HALF = 0.5
FEW_TRUE = 10
WHERE = "evaluate.thresholds"
Thresholds = Mapping[str, Mapping[str, float]]


def check(spec: EvaluateSpec, needs: Needs, examples: Mapping[Any, Examples]) -> None:
    """Look whether there is what thresholds are chosen for and on, before anything is spent.

    Raises: RecipeError if no answer has labels, or there is no validation split.
    """
    if spec.thresholds == "half":
        return
    if not _answers(needs):
        raise RecipeError(WHERE, "no answer is one of labels.", "Leave it out; a category is the likeliest class.")
    if not len(examples["valid"]):
        raise RecipeError(WHERE, "the validation split is empty.", "Give data.split.valid a share, or leave it out.")


def choose(evaluator: Evaluator, predictor: Predictor, examples: Examples) -> Thresholds:
    """The thresholds of each label of each answer on these rows, empty where the recipe leaves them at a half.

    A score is kept for each row and label, four bytes.
    """
    answers = _answers(evaluator.needs) if evaluator.spec.thresholds == "valid" else []
    scores, true = {name: array("f") for name in answers}, {name: list[tuple[str, ...]]() for name in answers}
    for _, sample, prediction in evaluator.answered(predictor, examples, range(len(examples))) if answers else ():
        for name in answers:
            given = prediction.answers.get(name)
            if isinstance(given, Labels) and name in sample.parts:
                scores[name].extend(given.scores[label] for label in evaluator.needs.answers[name].labels)
                true[name].append(sample.parts[name].value)
    made: dict[str, dict[str, float]] = {}
    for name in answers:
        labels = evaluator.needs.answers[name].labels
        table = np.array(scores[name], np.float32).reshape(-1, len(labels))
        made[name] = {
            label: best(table[:, place], np.array([label in row for row in true[name]], bool)) for place, label in enumerate(labels)
        }
    return made


def best(scores: NDArray[np.float32], true: NDArray[np.bool_]) -> float:
    """The threshold of the highest F1: rows of at least that score are given the label. A half where no row has it."""
    if not true.any():
        return HALF
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    ends = np.flatnonzero(np.append(ranked[:-1] != ranked[1:], True))  # the last row of each score
    hits = true[order].cumsum()[ends]
    f1 = 2 * hits / (ends + 1 + true.sum())
    below = np.append(ranked[ends[:-1] + 1], 0.0)
    edges = (ranked[ends] + below) / 2
    fine = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(edges[fine[np.argmin(np.abs(edges[fine] - HALF))]])


def told(report: Report, thresholds: Thresholds, examples: Examples) -> Report:
    """The report with the table `thresholds`, and a finding that says on what they were chosen."""
    if not thresholds:
        return report
    several, found = len(thresholds) > 1, list(report.findings)
    details = dict(report.details)
    for name, chosen in thresholds.items():
        details[f"{name}/thresholds" if several else "thresholds"] = [
            ("label", "threshold"),
            *((label, f"{value:.4f}") for label, value in chosen.items()),
        ]
        values = np.array(list(chosen.values()))
        message = (
            f"{len(chosen)} thresholds from {values.min():.3f} to {values.max():.3f}, of the highest F1 on {len(examples)} rows of valid."
        )
        remedy = "The artifact gives labels by them." if len(examples) >= FEW_TRUE * len(chosen) else "These are few rows to choose by."
        found.append(Finding("thresholds-chosen", Severity.INFO, f"{WHERE} ({name})", message, remedy, {"thresholds": dict(chosen)}))
    return replace(report, details=details, findings=tuple(found))


def _answers(needs: Needs) -> list[str]:
    return [name for name, need in needs.answers.items() if need.modality == "labels"]
