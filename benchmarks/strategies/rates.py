"""How the rates of the arms were chosen: three each, by validation, under a seed that is not measured.

python -m benchmarks.strategies.rates FOLDER [ARM ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import multitune
from benchmarks.strategies.arms import ARMS, SEED_FOR_RATES, SETTINGS, recipe

APART = 3.0


def main(arguments: Sequence[str]) -> int:
    """Print the validation accuracy of each arm at a third of its rate, at its rate, and at three times it."""
    setting = SETTINGS["chimes-200"]
    for name in arguments[1:] or [name for name, arm in ARMS.items() if len(arm.rates) == 1]:
        arm = ARMS[name]
        for rate in (arm.rates[0] / APART, arm.rates[0], arm.rates[0] * APART):
            asked = recipe(setting, arm, seed=SEED_FOR_RATES, rate=float(f"{rate:.2g}"))
            result = multitune.train(asked, run=Path(arguments[0]) / "rates" / f"{name}-{rate:.2g}")
            print(f"{name:<14} {rate:<8.2g} {result.figures['valid/accuracy']:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
