"""One way to fit the small models, for the tests of the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from multitune.core.recipe import TuningRow
from multitune.core.rundir import RunDir
from multitune.tuning.engines import accelerate
from multitune.tuning.engines.accelerate import Outcome
from tests.tuning.small import EVERYTHING, Small, Steps, plan, scope_of
from tests.tuning.test_gradients import loss_for


class Killed(BaseException):
    """Ends a run between two steps, as a kill would: nothing of it is caught."""


class DyingSteps(Steps):
    """Steps that end with `Killed` before step `last`."""

    last = 0

    def steps(self, start: int, stop: int) -> Any:
        """Steps, then the end."""
        for batch in super().steps(start, stop):
            if batch.step == self.last:
                raise Killed
            yield batch


def nothing(_: Any) -> Mapping[str, float]:
    """A watch that measures nothing."""
    return {}


def fit(
    family: Small,
    folder: Path,
    *,
    loader: Steps | None = None,
    table: tuple[TuningRow, ...] = EVERYTHING,
    watch: Any = nothing,
    steps: int = 8,
    scope_options: Mapping[str, Any] | None = None,
    loss: Any = None,
    **changes: Any,
) -> Outcome:
    """Fit with new objects for everything but the family. loss: one that learns, in place of the plain one."""
    scope = scope_of(family, table, steps=steps, loss=loss, **(scope_options or {}))
    engine = accelerate.build(accelerate.Options())
    steps_of_rows: Any = loader or Steps(family)
    run = RunDir(folder, None)
    judge = loss or loss_for(family.needs)
    return engine.fit(loader=steps_of_rows, family=family, scope=scope, loss=judge, plan=plan(**changes), run=run, watch=watch)


def bits(family: torch.nn.Module) -> str:
    """A hash of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(family.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
