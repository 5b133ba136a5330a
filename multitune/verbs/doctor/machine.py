"""What the machine gives: cores, memory, disk, shared memory, encodings; each with a finding where a run would suffer."""

from __future__ import annotations

import locale
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from multitune.core.finding import Finding, Severity
from multitune.core.store import cache_root

GB = 1 << 30
LEAST_MEMORY, LEAST_DISK, LEAST_SHARED = 2 * GB, 2 * GB, 256 << 20
FEW_FILES = 1024
CGROUPS = Path("/sys/fs/cgroup")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
FORWARDED = ("HF_ENDPOINT", "HF_HOME", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy")


@dataclass(frozen=True)
class Cores:
    """How many cores there are, how many this process may run on, and how many it is given (0: no limit)."""

    there: int
    allowed: int
    given: float

    @property
    def usable(self) -> int:
        """What threads can really run on."""
        return max(1, min(self.allowed, int(self.given) or 1) if self.given else self.allowed)


def cores(groups: Path = CGROUPS) -> Cores:
    """The cores of this process; groups: where the kernel states the limits of containers."""
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    quota, _, period = _read(groups / "cpu.max").partition(" ")
    if not period:
        quota, period = _read(groups / "cpu/cpu.cfs_quota_us"), _read(groups / "cpu/cpu.cfs_period_us")
    limit = int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else 0.0
    return Cores(there, allowed, round(limit, 2))


def threads(found: Cores, asked: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with the number of threads that the environment asks for."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        text = asked.get(name, "")
        if not text:
            continue
        if not text.split(",")[0].isdigit() or int(text.split(",")[0]) < 1:
            yield Finding(
                "threads-unreadable", Severity.WARNING, name, f'is "{text}", no number of threads.', "Leave it out, or give a number."
            )
        elif int(text.split(",")[0]) > found.usable:
            what = f"asks for {text} threads on {found.usable} usable cores: they wait for each other."
            yield Finding("too-many-threads", Severity.WARNING, name, what, f"Set it to {found.usable}, or state train.threads.")
    if not asked.get("OMP_NUM_THREADS") and found.given and found.given < found.allowed:
        what = f"this container is given {found.given:g} cores and sees {found.allowed}: libraries start {found.allowed} threads."
        yield Finding(
            "cores-limited", Severity.WARNING, "cores", what, f"Set OMP_NUM_THREADS={found.usable}, and train.threads={found.usable}."
        )


def memory(groups: Path = CGROUPS, info: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """Bytes of memory in all and still free, within the limits of a container; zeros where the system does not say."""
    lines = {name: value for name, _, value in (line.partition(":") for line in _read(info).splitlines())}
    total, free = (int((lines.get(name, "").split() or ["0"])[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit, used = _read(groups / "memory.max"), _read(groups / "memory.current")
    if not limit:
        limit, used = _read(groups / "memory/memory.limit_in_bytes"), _read(groups / "memory/memory.usage_in_bytes")
    if limit.isdigit() and 0 < int(limit) < (total or int(limit) + 1):
        left = int(limit) - int(used if used.isdigit() else 0)
        total, free = int(limit), min(free or left, left)
    return total, free


def little_memory(free: int) -> Iterator[Finding]:
    """Where less is free than a small run takes."""
    if 0 < free < LEAST_MEMORY:
        remedy = "Close other programs, or train with a small micro_batch and lora."
        yield Finding("little-memory", Severity.WARNING, "memory", f"only {size(free)} are free.", remedy)


def places() -> dict[str, Path]:
    """The folders that are written to, by what for."""
    hub = os.environ.get("HF_HUB_CACHE") or os.path.join(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface", "hub")
    return {"working folder": Path.cwd(), "hub cache": Path(hub), "own cache": cache_root(), "temporary": Path(tempfile.gettempdir())}


def disk(found: Mapping[str, Path]) -> tuple[dict[str, int], list[Finding]]:
    """Free bytes of each place, and where there is too little or nothing can be written."""
    free: dict[str, int] = {}
    findings: list[Finding] = []
    for role, path in found.items():
        home = next(parent for parent in (path, *path.resolve().parents) if parent.is_dir())
        free[role] = shutil.disk_usage(home).free
        if not os.access(home, os.W_OK):
            findings.append(Finding("not-writable", Severity.ERROR, role, f"{home} cannot be written.", _elsewhere(role)))
        elif free[role] < LEAST_DISK:
            what = f"{size(free[role])} are free at {home}."
            findings.append(Finding("little-disk", Severity.WARNING, role, what, f"Free some space. {_elsewhere(role)}"))
    return free, findings


def _elsewhere(role: str) -> str:
    variable = {"hub cache": "HF_HOME", "own cache": "MULTITUNE_CACHE", "temporary": "TMPDIR"}.get(role)
    return f"{variable} names another folder." if variable else "Work in another folder."


def shared(path: Path = Path("/dev/shm")) -> tuple[int, list[Finding]]:
    """Bytes of shared memory, through which loader processes hand over batches; zero where the system has none of that kind."""
    if not path.is_dir():
        return 0, []
    total = shutil.disk_usage(path).total
    if total >= LEAST_SHARED:
        return total, []
    what = f"{path} has {size(total)}: loader processes may end with a bus error."
    remedy = "Start the container with --shm-size=2g, or set train.workers=0."
    return total, [Finding("little-shared-memory", Severity.WARNING, "shared memory", what, remedy)]


def files() -> tuple[int, list[Finding]]:
    """How many files one process may hold open; 0 where the system does not say."""
    if os.name != "posix":
        return 0, []
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        return max(soft, 0), []
    what = f"a process may hold {soft} files open."
    return soft, [Finding("few-files", Severity.WARNING, "open files", what, f"ulimit -n {hard if hard > soft else FEW_FILES}")]


def encodings() -> tuple[dict[str, str], list[Finding]]:
    """What texts and names of files are written in, and where that is not UTF-8."""
    found = {
        "file names": sys.getfilesystemencoding(),
        "files": locale.getencoding(),
        "screen": getattr(sys.stdout, "encoding", None) or "none",
    }
    other = {what: name for what, name in found.items() if name.lower().replace("-", "") not in {"utf8", "none"}}
    if not other:
        return found, []
    shown = ", ".join(f"{what}: {name}" for what, name in other.items())
    remedy = "Set PYTHONUTF8=1, and LANG=C.UTF-8 or another UTF-8 locale."
    return found, [Finding("not-utf-8", Severity.WARNING, "encoding", f"not all is UTF-8 ({shown}): names and texts may fail.", remedy)]


def network(variables: Mapping[str, str]) -> list[str]:
    """What the environment says of the hub and the way to it; nothing is asked."""
    offline = [name for name in OFFLINE if variables.get(name, "").lower() in {"1", "true", "yes", "on"}]
    told = [f"offline ({', '.join(offline)}): only what the hub's cache holds" if offline else "online, as far as the environment says"]
    return told + [f"{name} is set" for name in FORWARDED if variables.get(name)]


def size(number: float) -> str:
    """Bytes for people: `1.5 GB`."""
    return f"{number / GB:.1f} GB" if number >= GB else f"{number / (1 << 20):.0f} MB"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
