"""Look for what would spoil a run, and try one.

Looked at are versions that do not fit, cores, memory, disk and encodings; then ten seconds of training are tried.
Each finding says what would do. The exit code is 1 where one is as severe as `--severity` asks (error by default). `--quick` leaves the
trial out. Nothing is downloaded, and nothing is left behind.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.finding import Finding, Severity
from multitune.core.result import Result
from multitune.verbs.doctor import machine, versions

Wanted = Literal["error", "warning"]


class Options(catalog.Options):
    """How far to look."""

    quick: bool = Field(default=False, description="leave out the trial and import nothing heavy")
    severity: Wanted = Field(default="error", description="exit with 1 where a finding is as severe as this: error or warning")
    run: Path | None = Field(default=None, description="also write what is shown into this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


@dataclass
class _Seen:
    """Sections with lines for people, and what was found and measured along the way."""

    sections: dict[str, list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


def build(options: Options) -> Result:
    """What was found."""
    made = doctor(quick=options.quick, severity=options.severity)
    return made if options.run is None else made.kept(options.run / "doctor.txt")


def doctor(*, quick: bool = False, severity: Wanted = "error") -> Result:
    """Findings on the installation and the machine; figures: cores, bytes, and of the trial `cpu/seconds`, `cpu/parity`."""
    seen = _Seen()
    packages = versions.installed()
    _versions(seen, packages)
    _machine(seen)
    if not quick:
        seen.findings += versions.loads(packages)
        if not any(finding.code == "cannot-be-imported" for finding in seen.findings):
            _devices(seen)
            _trial(seen)
    grave = {Severity.ERROR} if severity == "error" else {Severity.ERROR, Severity.WARNING}
    ok = not any(finding.severity in grave for finding in seen.findings)
    return Result(ok=ok, figures=seen.figures, findings=tuple(seen.findings), text="\n".join(_text(seen)))


def _versions(seen: _Seen, packages: Mapping[str, versions.Installed]) -> None:
    home = Path(versions.__file__).resolve().parents[2]
    lines = [f"python {platform.python_version()} at {sys.executable}", f"multitune at {home}"]
    lines.append(", ".join(f"{name} {packages[name].version}" for name in versions.SHOWN if name in packages))
    seen.sections["versions"] = lines
    seen.findings += versions.judge(packages)


def _machine(seen: _Seen) -> None:
    cores = machine.cores()
    total, free = machine.memory()
    space, little = machine.disk(machine.places())
    shared, small = machine.shared()
    handles, few = machine.files()
    written, other = machine.encodings()
    limit = f", given {cores.given:g}" if cores.given else ""
    asked = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY") if os.environ.get(name)]
    seen.sections["machine"] = [
        f"{platform.system()} {platform.release()}, {platform.machine()}",
        f"cores: {cores.there}, this process may use {cores.allowed}{limit}" + (f"; {', '.join(asked)}" if asked else ""),
        f"memory: {machine.size(free)} of {machine.size(total)} free" if total else "memory: the system does not say",
        *(f"disk, {role}: {machine.size(number)} free at {machine.places()[role]}" for role, number in space.items()),
        *([f"shared memory: {machine.size(shared)}"] if shared else []),
        *([f"open files: {handles:,} at most"] if handles else []),
        f"encoding: {', '.join(f'{what} {name}' for what, name in written.items())}",
        *(f"hub: {text}" for text in machine.network(os.environ)),
    ]
    seen.findings += [*machine.threads(cores, os.environ), *machine.little_memory(free), *little, *small, *few, *other]
    seen.figures |= {"cores": float(cores.usable), "memory_free": float(free), "disk_free": float(min(space.values()))}


def _devices(seen: _Seen) -> None:
    import torch

    number = torch.get_num_threads()
    lines = [f"cpu, {number} {'thread' if number == 1 else 'threads'}"]
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        lines.append(f"cuda:{number} {facts.name}, {machine.size(facts.total_memory)}, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        lines.append("mps")
    if not torch.cuda.is_available() and (shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        found = f"there is an NVIDIA driver, and torch {torch.__version__} ({built}) sees no GPU."
        remedy = "Install the build of torch for this driver, or a newer driver: pytorch.org/get-started/locally."
        seen.findings.append(Finding("gpu-unseen", Severity.WARNING, "devices", found, remedy))
    seen.sections["devices"] = lines
    seen.figures["devices"] = float(len(lines))


def _trial(seen: _Seen) -> None:
    """The trial on the processor, and on the device that a run would take, if that is another."""
    import torch

    from multitune.verbs.doctor.trying import attempt

    other = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""
    tried = [attempt(device) for device in ("cpu", other) if device]
    seen.sections["trial"] = [line for one in tried for line in one.lines]
    for one in tried:
        seen.findings += one.findings
        seen.figures |= one.figures


def _text(seen: _Seen) -> Iterator[str]:
    for name, lines in seen.sections.items():
        yield name
        yield from (f"  {line}" for line in lines)
        yield ""
    if not seen.findings:
        yield "nothing found that would spoil a run"
        return
    yield f"{len(seen.findings)} findings" if len(seen.findings) > 1 else "1 finding"
    for finding in seen.findings:
        yield f"  {finding.severity}: {finding.where}: {finding.message}"
        yield from ([f"      {finding.remedy}"] if finding.remedy else [])
