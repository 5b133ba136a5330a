"""multitune fine-tunes multimodal transformers, from raw data to a served model.

    import multitune
    result = multitune.train("recipes/digits.yaml")
    model = multitune.load(result.paths["artifact"])
    model.predict({"image": "scan.png"})

This is the door: each name is imported when it is first used, so `import multitune` costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitune.core.catalog import register
    from multitune.deliver.artifact import open_artifact as load
    from multitune.verbs.doctor import doctor
    from multitune.verbs.encode import encode
    from multitune.verbs.evaluate import evaluate
    from multitune.verbs.init import init
    from multitune.verbs.inspect import inspect
    from multitune.verbs.plan import plan
    from multitune.verbs.predict import predict
    from multitune.verbs.push import push
    from multitune.verbs.render import render
    from multitune.verbs.runs import runs
    from multitune.verbs.schema import schema
    from multitune.verbs.store import store
    from multitune.verbs.train import train

__version__ = "0.1.0"
__all__ = [
    "doctor",
    "encode",
    "evaluate",
    "init",
    "inspect",
    "load",
    "plan",
    "predict",
    "push",
    "register",
    "render",
    "runs",
    "schema",
    "store",
    "train",
]

_HOMES = {
    "doctor": ("multitune.verbs.doctor", "doctor"),
    "encode": ("multitune.verbs.encode", "encode"),
    "evaluate": ("multitune.verbs.evaluate", "evaluate"),
    "init": ("multitune.verbs.init", "init"),
    "inspect": ("multitune.verbs.inspect", "inspect"),
    "load": ("multitune.deliver.artifact", "open_artifact"),
    "plan": ("multitune.verbs.plan", "plan"),
    "predict": ("multitune.verbs.predict", "predict"),
    "push": ("multitune.verbs.push", "push"),
    "register": ("multitune.core.catalog", "register"),
    "render": ("multitune.verbs.render", "render"),
    "runs": ("multitune.verbs.runs", "runs"),
    "schema": ("multitune.verbs.schema", "schema"),
    "store": ("multitune.verbs.store", "store"),
    "train": ("multitune.verbs.train", "train"),
}
# Verbs that only the command line needs in more than one form; not in __all__, where `list` would hide Python's own.
_BY_OPTIONS = ("demo", "list", "verify_resume")


def __getattr__(name: str) -> Any:
    if name in _BY_OPTIONS:
        return _verb(name)
    if name not in _HOMES:
        raise AttributeError(f"module 'multitune' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def _verb(name: str) -> Callable[..., Any]:
    """A verb by its options: `multitune.verify_resume(recipe="recipe.yaml", kills=1)`."""
    catalog = importlib.import_module("multitune.core.catalog")

    def verb(**options: Any) -> Any:
        return catalog.find("verb", name, options).build()

    return verb


def __dir__() -> list[str]:
    return [*__all__, *_BY_OPTIONS, "__version__"]
