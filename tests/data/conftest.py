"""A cache of its own for every test of the data room."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    if "sources/" not in str(request.node.path).replace("\\", "/"):
        monkeypatch.setenv("MULTITUNE_CACHE", str(folder))
    return folder
