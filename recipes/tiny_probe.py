"""What a linear classifier reads from a frozen tower: features averaged over tokens, a logistic regression on top.

`image_probes(folder)` and `audio_probes(folder)` draw rows of chimes, domain `target`, which no tower was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel

from multitune.core import catalog
from multitune.core.protocols import Rows
from multitune.data.sources.chimes.words import SHAPE_GROUPS

ROWS = 4_000
SEED = 2_001
GATE: Mapping[str, float] = {"shape": 0.85, "shape_group": 0.9, "colour": 0.95, "timbre": 0.95, "contour": 0.95}
Features = npt.NDArray[np.float32]
Names = npt.NDArray[np.str_]


def image_probes(folder: Path, *, rows: int = ROWS) -> dict[str, float]:
    """Accuracy of linear probes for `shape`, for its group and for `colour`.

    shape_group: whether the shape that its probe names is of the right group. shape_group_direct: of a probe for the two groups
    themselves; each joins four unlike shapes, which one plane parts less well.
    """
    table = _table("image", rows)
    processor = AutoImageProcessor.from_pretrained(folder)
    prepared = [processor(np.array(Image.open(path)), return_tensors="pt") for path in _paths(table, "image")]
    features = _features(folder, prepared)
    named = _named(features, table, "shape")
    true_groups = _test_rows(table, "shape_group")
    return {
        "shape": _share(named, _test_rows(table, "shape")),
        "shape_group": _share(np.array([SHAPE_GROUPS[shape] for shape in named]), true_groups),
        "shape_group_direct": _share(_named(features, table, "shape_group"), true_groups),
        "colour": _share(_named(features, table, "colour"), _test_rows(table, "colour")),
    }


def audio_probes(folder: Path, *, rows: int = ROWS) -> dict[str, float]:
    """Accuracy of linear probes for `timbre` and `contour`."""
    table = _table("audio", rows)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    waves = [soundfile.read(path, dtype="float32") for path in _paths(table, "audio")]
    prepared = [extractor(wave, sampling_rate=rate, return_tensors="pt") for wave, rate in waves]
    features = _features(folder, prepared)
    return {name: _share(_named(features, table, name), _test_rows(table, name)) for name in ("timbre", "contour")}


def below_the_gate(probes: Mapping[str, float]) -> list[str]:
    """What must be better before the demo can stand on these towers, as `shape 0.790 < 0.85`."""
    return [f"{name} {value:.3f} < {GATE[name]}" for name, value in probes.items() if value < GATE.get(name, 0.0)]


def _table(part: str, rows: int) -> Rows:
    options = {"rows": rows, "seed": SEED, "domain": "target", "parts": [part], "valid": 0.0, "test": 0.5}
    return catalog.find("source", "chimes", options).build().read()


def _paths(table: Rows, column: str) -> list[Path]:
    root = table.root or Path()
    return [root / str(name) for name in table.column(column)]


def _named(features: Features, table: Rows, column: str) -> Names:
    """What a linear probe, fitted on the train half with C by cross-validation, says of the test half."""
    train = _is_train(table)
    rates = {"logisticregression__C": [0.003, 0.01, 0.03, 0.1, 0.3]}
    probe = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000)), rates, cv=3)
    probe.fit(features[train], _column(table, column)[train])
    return probe.predict(features[~train])


def _test_rows(table: Rows, column: str) -> Names:
    return _column(table, column)[~_is_train(table)]


def _column(table: Rows, column: str) -> Names:
    return np.array([str(value) for value in table.column(column)])


def _is_train(table: Rows) -> npt.NDArray[np.bool_]:
    return _column(table, "split") == "train"


def _share(said: Names, true: Names) -> float:
    return float((said == true).mean())


def _features(folder: Path, prepared: Sequence[Mapping[str, torch.Tensor]]) -> Features:
    """The last hidden states averaged over tokens, (rows, width)."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    name = model.main_input_name
    made: list[Features] = []
    with torch.inference_mode():
        for start in range(0, len(prepared), 100):
            inputs = torch.cat([row[name] for row in prepared[start : start + 100]])
            made.append(model(**{name: inputs}).last_hidden_state.mean(1).numpy())
    return np.concatenate(made)
