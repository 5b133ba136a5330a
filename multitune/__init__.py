"""multitune fine-tunes multimodal transformers, from raw data to a served model.

    import multitune
    result = multitune.train("recipes/digits.yaml")
    model = multitune.load(result.paths["artifact"])
    model.predict({"image": "scan.png"})

This is the door: each name is imported when it is first used, so `import multitune` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitune.core.catalog import register
    from multitune.deliver.artifact import open_artifact as load
    from multitune.verbs.evaluate import evaluate
    from multitune.verbs.plan import plan
    from multitune.verbs.predict import predict
    from multitune.verbs.train import train

__version__ = "0.1.0"
__all__ = ["evaluate", "load", "plan", "predict", "register", "train"]

_HOMES = {
    "evaluate": ("multitune.verbs.evaluate", "evaluate"),
    "load": ("multitune.deliver.artifact", "open_artifact"),
    "plan": ("multitune.verbs.plan", "plan"),
    "predict": ("multitune.verbs.predict", "predict"),
    "register": ("multitune.core.catalog", "register"),
    "train": ("multitune.verbs.train", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'multitune' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
