"""On what a benchmark was measured, and the memory of a process."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.environment import PINS, wanted

OWN = ("torch", "transformers", "accelerate", "numpy", "scikit-learn", "pillow")


def machine() -> str:
    """The processor, its cores, the memory and the system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    library = " ".join(platform.libc_ver()).strip()
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, {library}, Python {platform.python_version()}"


def versions(peers: Sequence[str] = ()) -> str:
    """The packages on which both sides stand, and the peers that are named."""
    pins = dict(pin.split("==") for pin in wanted(PINS))
    return ", ".join([*(f"{name} {importlib.metadata.version(name)}" for name in OWN), *(f"{name} {pins[name]}" for name in peers)])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def resident_bytes() -> int:
    """Bytes of this process in memory now, 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def peak_bytes() -> int:
    """Bytes of this process in memory at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
