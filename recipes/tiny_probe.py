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
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel

from multitune.core import catalog
from multitune.core.protocols import Rows

ROWS = 4_000
SEED = 2_001
GATE: Mapping[str, float] = {"shape": 0.85, "shape_group": 0.9, "colour": 0.95, "timbre": 0.95, "contour": 0.95}
Features = npt.NDArray[np.float32]


def image_probes(folder: Path, *, rows: int = ROWS) -> dict[str, float]:
    """Accuracy of linear probes for `shape`, `shape_group` and `colour`."""
    table = _table("image", rows)
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = [np.asarray(Image.open(path)) for path in _paths(table, "image")]
    return _probes(folder, [processor(picture, return_tensors="pt") for picture in pixels], table, ("shape", "shape_group", "colour"))


def audio_probes(folder: Path, *, rows: int = ROWS) -> dict[str, float]:
    """Accuracy of linear probes for `timbre` and `contour`."""
    table = _table("audio", rows)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    waves = [soundfile.read(path, dtype="float32") for path in _paths(table, "audio")]
    prepared = [extractor(wave, sampling_rate=rate, return_tensors="pt") for wave, rate in waves]
    return _probes(folder, prepared, table, ("timbre", "contour"))


def below_the_gate(probes: Mapping[str, float]) -> list[str]:
    """What must be better before the demo can stand on these towers, as `shape 0.790 < 0.85`."""
    return [f"{name} {value:.3f} < {GATE[name]}" for name, value in probes.items() if value < GATE[name]]


def _table(part: str, rows: int) -> Rows:
    options = {"rows": rows, "seed": SEED, "domain": "target", "parts": [part], "valid": 0.0, "test": 0.5}
    return catalog.find("source", "chimes", options).build().read()


def _paths(table: Rows, column: str) -> list[Path]:
    root = table.root or Path()
    return [root / str(name) for name in table.column(column)]


def _probes(folder: Path, prepared: Sequence[Mapping[str, torch.Tensor]], table: Rows, columns: Sequence[str]) -> dict[str, float]:
    features = _features(folder, prepared)
    train = np.array([split == "train" for split in table.column("split")])
    found: dict[str, float] = {}
    for name in columns:
        truth = np.array([str(value) for value in table.column(name)])
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2_000))
        probe.fit(features[train], truth[train])
        found[name] = float(probe.score(features[~train], truth[~train]))
    return found


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
