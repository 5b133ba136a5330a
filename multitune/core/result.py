"""What every verb gives back: to the command line as text or JSON, to Python as an object."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from multitune.core.finding import Finding
from multitune.core.rundir import write_atomic

SMALLER_IS_BETTER = frozenset({"loss", "mae", "mse", "rmse", "error", "rank", "perplexity", "wer", "cer", "ece", "brier", "nll"})


def smaller_is_better(figure: str) -> bool:
    """Whether a figure's name says so: a step of it, such as `valid/loss`, or a word of the last one, such as `median_rank`."""
    return not SMALLER_IS_BETTER.isdisjoint({*figure.rpartition("/")[2].split("_"), *figure.split("/")})


@dataclass(frozen=True)
class Result:
    """figures: flat, name to number (`test/accuracy`). paths: what was written, by role. text: what a person reads."""

    ok: bool
    figures: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    paths: Mapping[str, Path] = field(default_factory=dict)
    text: str = ""

    def kept(self, path: Path) -> Result:
        """The same, its text written to a file whole."""
        return replace(self, paths={**self.paths, "text": write_atomic(path, (self.text + "\n").encode("utf-8"))})

    def json_line(self) -> str:
        """One line of JSON with `ok`, `figures`, `findings` and `paths`; a figure that is not finite stands as null."""
        return json.dumps(
            {
                "ok": self.ok,
                "figures": {name: value if math.isfinite(value) else None for name, value in self.figures.items()},
                "findings": [finding.to_json() for finding in self.findings],
                "paths": {role: str(path) for role, path in self.paths.items()},
            },
            ensure_ascii=False,
            allow_nan=False,
            default=str,
        )
