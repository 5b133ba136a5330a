"""A package of a third party, installed as any other, into a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import multitune

ROOT = Path(multitune.__file__).parents[1]
HERE = Path(__file__).resolve().parent
PIP = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def run_with(*folders: Path, words: tuple[str, ...], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with these folders among its packages."""
    path = os.pathsep.join(map(str, (ROOT, *folders)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, cwd=cwd, env=environment, check=False)


@pytest.fixture(scope="session")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `multitune_curves` is installed in."""
    folder = tmp_path_factory.mktemp("packages")
    source = shutil.copytree(HERE / "multitune_curves", tmp_path_factory.mktemp("source") / "multitune_curves")
    made = run_with(words=("-m", "pip", *PIP, str(folder), str(source)), cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def with_curves(curves: Path, tmp_path: Path) -> Run:
    """`run("-m", "multitune", ...)` where the package is installed."""
    return lambda *words: run_with(curves, words=words, cwd=tmp_path)


@pytest.fixture
def with_package(tmp_path: Path) -> Run:
    """`run(*words, package=..., module=..., points=...)`: with a package whose one module holds that text, installed by its metadata."""

    def run(*words: str, module: str, points: str, package: str = "multitune-torn") -> subprocess.CompletedProcess[str]:
        folder = tmp_path / package
        place = folder / f"{package.replace('-', '_')}.py"
        info = folder / f"{package.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        place.write_text(module)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(points)
        return run_with(*sorted(path for path in tmp_path.glob("multitune-*") if path.is_dir()), words=words, cwd=tmp_path)

    return run


def curve_rows(folder: Path, count: int = 180) -> Path:
    """A table of noisy curves that rise, fall or swing, of 6 to 29 points."""
    rng, lines = np.random.default_rng(0), list[str]()
    for number in range(count):
        kind = ("rise", "fall", "wave")[number % 3]
        time = np.linspace(0, 1, int(rng.integers(6, 30)))
        values = {"rise": time, "fall": 1 - time, "wave": np.sin(9 * time)}[kind] + 0.1 * rng.standard_normal(len(time))
        lines.append(json.dumps({"id": str(number), "curve": ";".join(f"{value:.3f}" for value in values), "kind": kind}))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines))
    return path
