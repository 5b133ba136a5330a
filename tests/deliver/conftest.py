"""Artifacts that the tests of this folder share."""

from __future__ import annotations

import pytest

from tests.deliver.making import LORA, Made, classifier, embedder, make, speaker


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A classifier, all of it tuned."""
    return make(tmp_path_factory.mktemp("tuned"), *classifier(), [{"pattern": "*"}])


@pytest.fixture(scope="session")
def with_lora(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A classifier with LoRA in its image tower."""
    return make(tmp_path_factory.mktemp("lora"), *classifier(), LORA)


@pytest.fixture(scope="session")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A dual encoder, all of it tuned."""
    return make(tmp_path_factory.mktemp("embedding"), *embedder(), [{"pattern": "*"}])


@pytest.fixture(scope="session")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A generative model with LoRA in its language model."""
    rows = [{"pattern": "lm.*", "insert": {"name": "lora", "rank": 4}}, {"pattern": "connector.*"}]
    return make(tmp_path_factory.mktemp("speaking"), *speaker(), rows)
