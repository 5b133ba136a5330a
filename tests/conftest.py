"""One compute thread a test process (two run at once), and a cache that is the project's own, not the user's."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MULTITUNE_CACHE", str(Path(__file__).resolve().parent.parent / "build" / "test-cache"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from multitune.core import catalog


@pytest.fixture(autouse=True)
def _no_plugin_outlives_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test registers is not there for the next one of the same process: tests may come in any order."""
    for name in ("_registered", "_files_given"):
        monkeypatch.setattr(catalog, name, dict(vars(catalog)[name]))
