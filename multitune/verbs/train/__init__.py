"""Fine-tune a model as a recipe says, measure it, and leave an artifact that proves itself.

The same command again resumes an unfinished run and answers from a finished one. The run folder is locked before anything
heavy is imported, so a second run in it is refused at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.recipe import Recipe
from multitune.core.result import Result
from multitune.core.rundir import RunDir, check_tags, keep_tags, open_run, run_folder
from multitune.verbs.plan import as_recipe
from multitune.verbs.train.keeping import finished, keep_plan
from multitune.verbs.train.line import Line
from multitune.verbs.train.running import run_line


class Options(catalog.Options):
    """Which recipe, where the run lives."""

    recipe: Path = Field(description="a YAML file", json_schema_extra={"positional": True, "metavar": "RECIPE"})
    overrides: tuple[str, ...] = Field(default=(), description="key=value, such as train.lr=3e-5", json_schema_extra=catalog.POSITIONAL)
    run: Path | None = Field(default=None, description="the run's folder; by default runs/<name>-<first 6 of the request's hash>")
    fresh: bool = Field(default=False, description="move what the folder holds aside and start anew")
    tag: tuple[str, ...] = Field(default=(), description="a word that multitune runs shows and looks for; may be given several times")


def build(options: Options) -> Result:
    """Train from a recipe file."""
    return train(options.recipe, overrides=options.overrides, run=options.run, fresh=options.fresh, tags=options.tag)


def train(
    recipe: Recipe | Mapping[str, Any] | Path | str,
    *,
    overrides: Sequence[str] = (),
    run: Path | str | None = None,
    fresh: bool = False,
    tags: Sequence[str] = (),
) -> Result:
    """Train, evaluate what came out on the test split, and leave an artifact.

    tags: words for `multitune runs`, no part of the request. figures: those of the test split, `seconds`, `steps`.
    paths: `run`, `artifact`.
    Raises: UserError for what the recipe or the data get wrong; Fault for the machine or the numbers; Stopped on a signal.
    """
    started = time.perf_counter()
    check_tags(tags)
    asked = as_recipe(recipe, overrides)
    folder = Path(run) if run is not None else None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return _among_ranks(asked, folder, fresh, started, tags)
    with _opened(asked, folder, fresh, tags) as locked:
        answer, broken = finished(locked)
        return answer or run_line(asked, locked, started, told=broken)


def _opened(recipe: Recipe, folder: Path | None, fresh: bool, tags: Sequence[str]) -> RunDir:
    run = open_run(
        request=recipe.request(), request_hash=recipe.request_hash(), name=recipe.name, folder=folder, fresh=fresh, over_unspent=True
    )
    keep_tags(run, tags)
    return run


def _among_ranks(recipe: Recipe, folder: Path | None, fresh: bool, started: float, tags: Sequence[str]) -> Result:
    """The same over several processes: the main one holds the lock and writes; the others look at nothing before its word."""
    from multitune.tuning.engines.accelerate import processes
    from multitune.tuning.plan import device_of

    ranks = processes(device_of(recipe))
    with ExitStack() as stack:
        run = ranks.on_main(lambda: stack.enter_context(_opened(recipe, folder, fresh, tags)))
        found = ranks.on_main(lambda: finished(run) if run is not None else (None, ()))
        answer, broken = found if found is not None else (None, ())
        (answered,) = ranks.from_main([int(answer is not None)])
        if answered:
            return answer or Result(ok=True)
        where = run_folder(name=recipe.name, request_hash=recipe.request_hash(), folder=folder)
        return run_line(recipe, run or RunDir(where, None), started, told=broken)


__all__ = ["Line", "Options", "build", "keep_plan", "train"]
