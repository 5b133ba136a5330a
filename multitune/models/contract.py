"""The contract: all that decides how raw input becomes what the model reads, hashed."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from multitune.core import store
from multitune.core.protocols import Family

LIBRARIES = ("transformers", "tokenizers", "torchvision", "pillow", "soundfile", "soxr", "numpy")


def contract(family: Family) -> dict[str, Any]:
    """What the preparer does, with the versions of the libraries that do it, as plain data; `hash` covers the rest."""
    content: dict[str, Any] = {
        "form": 1,
        "preparer": dict(family.preparer.describe()),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    return content | {"hash": store.key(content)}
