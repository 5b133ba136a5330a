"""`train.compile`: the blocks of towers run compiled while steps are taken, and what that costs and saves.

What compiles is imported where a plan asks for it: torch's compiler takes a second to import, which no other run waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from multitune.core.finding import Finding
from multitune.core.plan import Plan
from multitune.tuning.plan.compiling import asked
from multitune.tuning.ranks import Ranks
from multitune.tuning.scope import Scope

if TYPE_CHECKING:
    from multitune.tuning.compiling.blocks import Compiled


class Uncompiled:
    """What a plan without `train.compile` has in place of compiled blocks: nothing happens."""

    def step(self, step: int) -> AbstractContextManager[None]:
        """Inside, blocks run as they are."""
        return nullcontext()

    def gather(self, ranks: Ranks) -> None:
        """Nothing was compiled."""

    def facts(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, facts: Mapping[str, Any], *, scope: Scope, ranks: Ranks) -> None:
        """Nothing was kept."""

    def findings(self) -> list[Finding]:
        """Nothing to tell."""
        return []


def compiled_of(plan: Plan, family: Any, device: torch.device) -> Compiled | Uncompiled:
    """The compiled blocks of a family where a plan asks for them."""
    if not asked(plan):
        return Uncompiled()
    from multitune.tuning.compiling.blocks import Compiled

    return Compiled(family.towers, precision=plan["train.precision"], device=str(device))


__all__ = ["Uncompiled", "compiled_of"]
