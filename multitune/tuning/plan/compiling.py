"""`train.compile` in the plan: whether it can be, and after how many steps it pays.

What it costs and saves is measured when a run starts, or by `plan --prove`, and remembered on this machine; the value that binds is `true`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from multitune.core import store
from multitune.core.errors import RecipeError, WriteFault
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Plan, Value
from multitune.core.recipe import Recipe
from multitune.core.recipe.features import NO_CUT
from multitune.core.rundir import write_atomic
from multitune.models.anatomy import Anatomy

FIELD, CODE = "train.compile", "compile-does-not-pay"
FOLDER, KEPT = "compiled", ".kept"
LEAVE_OUT = "Leave train.compile out."
# What a step computes follows from these values of a plan.
_READ = ("model.", "strategy.", "loss.", "data.", "features.")
_TRAIN = ("batch_size", "micro_batch", "batch_tokens", "bucket", "threads", "device", "ranks", "precision", "batch_norm")
_TRAIN_TOO = ("checkpoint_activations", "compile")


@dataclass(frozen=True)
class Cost:
    """Seconds of both passes over one micro-batch, uncompiled and compiled, and how long compiling for it took.

    at_once: over how many micro-batches of one step this was measured.
    """

    eager: float
    compiled: float
    compiling: float
    at_once: int = 1

    def pays_after(self, micro_batches: int, *, times: int = 1) -> float:
        """After how many steps of so many micro-batches it pays, compiled for so many times; infinite where it never does."""
        saved = (self.eager - self.compiled) * micro_batches
        return self.compiling * times / saved if saved > 0 else float("inf")


def compile_value(recipe: Recipe, anatomy: Anatomy, *, device: str) -> dict[str, Value]:
    """`train.compile` where the recipe asks for it; a plan that does not say it is one without.

    Raises: RecipeError where this machine cannot compile, or where there is nothing to compile.
    """
    if not recipe.train.compile:
        return {}
    lack = lacking(device)
    if lack[0]:
        raise RecipeError(FIELD, f"{lack[0]}.", f"{lack[1]} {LEAVE_OUT}".lstrip())
    if not any(tower.blocks for tower in anatomy.towers):
        raise RecipeError(FIELD, "blocks of towers are compiled, and no tower of this model has blocks.", LEAVE_OUT)
    return {FIELD: Value(True, "recipe", note="after how many steps it pays is measured when the run starts")}


def lacking(device: str, *, system: str = sys.platform, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """What this machine lacks to compile for a device, and what would do; empty where it lacks nothing."""
    if device == "mps" or system == "win32":
        return f"blocks are compiled on Linux and macOS, for the CPU and CUDA, not {'for mps' if device == 'mps' else 'on Windows'}", ""
    if device == "cuda":
        there = importlib.util.find_spec("triton") is not None
        return ("", "") if there else ("torch compiles for CUDA by Triton, which is not installed", "Install triton, or:")
    compiler = (environment.get("CXX") or ("clang++" if system == "darwin" else "g++")).split()[0]
    if shutil.which(compiler) is None:
        return f"torch compiles for the CPU by a C++ compiler, and {compiler} is not there", "Install it, name another one in CXX, or:"
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not headers.is_file():
        return f"torch compiles for the CPU with Python's headers, and {headers} is not there", "Install python3-dev, or:"
    return "", ""


def asked(plan: Plan) -> bool:
    """Whether a plan has blocks compiled."""
    return FIELD in plan.values and bool(plan[FIELD])


def told(plan: Plan, cost: Cost, *, measures: bool = False, aside: str = "") -> Plan:
    """The plan with what compiling costs and saves, and a finding where it does not pay; what binds stays.

    measures: this run measures it, and so compiles twice: the second time takes no longer than the first. aside: said at the end.
    """
    each, steps = _micro_batches(plan), plan["train.steps"]
    after = cost.pays_after(each, times=1 + measures)
    said = f"both passes of a step take {cost.compiled * each:.3g} s in place of {cost.eager * each:.3g} s"
    said += f", compiling takes {cost.compiling:.0f} s" + (f" and {cost.compiling:.0f} s more to measure it" if measures else "")
    said += ": it never pays" if after == float("inf") else f": it pays after {math.ceil(after):,} steps"
    findings = tuple(finding for finding in plan.findings if finding.code != CODE)
    if after > steps:
        findings = (*findings, Finding(CODE, Severity.WARNING, FIELD, f"{said}, and the run has {steps:,}{aside}.", LEAVE_OUT))
    note = f"{said} of {steps:,}" if after <= steps else said
    return replace(plan, values={**plan.values, FIELD: replace(plan.values[FIELD], note=note + aside)}, findings=findings)


def told_before(plan: Plan) -> Plan:
    """The plan with what is remembered of it."""
    cost = remembered(plan) if asked(plan) else None
    return plan if cost is None else told(plan, cost)


def at_once(plan: Plan) -> int:
    """Over how many micro-batches of its first step a plan is measured: a loss over pairs runs all but the last of them twice."""
    return min(2 if plan["loss.over"] == "pairs" else 1, _micro_batches(plan))


def remembered(plan: Plan) -> Cost | None:
    """What was measured on this machine, on as many micro-batches, for a plan whose steps compute the same."""
    try:
        return as_cost(json.loads(_place(plan, at_once(plan)).read_text("utf-8")))
    except (OSError, ValueError):
        return None


def as_cost(facts: Any) -> Cost | None:
    """What `vars` of a cost gives, read back; None where it is something else."""
    try:
        return Cost(float(facts["eager"]), float(facts["compiled"]), float(facts["compiling"]), int(facts["at_once"]))
    except (KeyError, TypeError, ValueError):
        return None


def remember(plan: Plan, cost: Cost) -> None:
    """Keep what was just measured, where the machine takes it."""
    try:
        write_atomic(_place(plan, cost.at_once), (json.dumps(vars(cost), sort_keys=True) + "\n").encode())
    except WriteFault:
        return


def _micro_batches(plan: Plan) -> int:
    """Of a step, on the rank that has most of them."""
    return -(-plan["train.micro_batches"] // plan["train.ranks"])


def _place(plan: Plan, measured: int) -> Path:
    """Where what was measured on so many micro-batches lies. What a run keeps counts: blocks under it do not run."""
    train = {f"train.{name}" for name in (*_TRAIN, *_TRAIN_TOO)}
    read = {name: value.value for name, value in plan.values.items() if name.startswith(_READ) or name in train}
    read = {name: value for name, value in read.items() if not (name.endswith(KEPT) and value == NO_CUT)}
    machine = [torch.__version__, platform.node(), platform.machine(), os.cpu_count()]
    return store.cache_root() / FOLDER / f"{store.key({**read, 'measured': measured, 'machine': machine})[:40]}.json"
