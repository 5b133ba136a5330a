"""The C library's memory on the CPU: what tensors give back stays with the process, and the next step takes it again.

By default glibc maps large blocks one by one and returns them as soon as they are free. Each step then asks the system for the same pages
anew, which fills them with zeros first. The two thresholds are those of the whole process and stay after a run; no bit of it changes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from multitune.core.plan import Plan, Value
from multitune.core.recipe import Recipe

FIELD = "train.allocator"
KEPT, SYSTEM = "kept", "system"
OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")  # what a user sets by hand stands
_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_LARGEST = 32 << 20  # glibc takes no larger threshold for mapping
_NEVER = -1  # a threshold for giving back that no heap reaches
_NOTES = {KEPT: "glibc's thresholds for mapping and giving back are raised", SYSTEM: "glibc's thresholds stay as they are"}


def allocator_value(recipe: Recipe, *, device: str, environment: Mapping[str, str] = os.environ) -> Value:
    """`kept` or `system`, and why: `auto` keeps memory where the device is the CPU, the C library glibc and its thresholds not set."""
    if recipe.train.allocator == "system":
        return Value(SYSTEM, "recipe", "speed", _NOTES[SYSTEM])
    own = next((name for name in OWN if environment.get(name)), "")
    why = f"device {device}" if device != "cpu" else f"{own} is set" if own else "" if _is_glibc() else "the C library is not glibc"
    return Value(SYSTEM if why else KEPT, "machine", "speed", why or _NOTES[KEPT])


def set_allocator(plan: Plan) -> bool:
    """Raise the thresholds where the plan says so; whether the C library took both."""
    if plan[FIELD] != KEPT:
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MAP, _LARGEST)) and bool(libc.mallopt(_TRIM, _NEVER))


@contextmanager
def given_back() -> Generator[None]:
    """Afterwards the system has what is free, whatever the thresholds are: a notebook goes on."""
    try:
        yield
    finally:
        if _is_glibc():
            ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # not of this system
        return False
