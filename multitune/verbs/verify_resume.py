"""Prove that a killed run ends with the same bits: real SIGKILLs at random moments, resumed, compared.

The recipe is trained once without interruption. Then, `--kills` times: it is trained in a folder of its own, killed at a random
step after a checkpoint and before the last step, and the same command is given again. Figures: `kills`, `equal` (1 only if
every killed run ends with the same weights and the same figures).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from multitune.core import catalog, randomness
from multitune.core.errors import Fault, RunError
from multitune.core.result import Result
from multitune.verbs.plan import as_recipe

POLL_SECONDS = 0.005
ATTEMPTS = 5


class Options(catalog.Options):
    """Which recipe, how many kills."""

    recipe: Path = Field(description="a YAML file", json_schema_extra={"positional": True, "metavar": "RECIPE"})
    overrides: tuple[str, ...] = Field(default=(), description="key=value", json_schema_extra=catalog.POSITIONAL)
    kills: int = Field(default=3, ge=1, description="how many runs are killed")
    seed: int = Field(default=0, ge=0, description="of the moments at which they are killed")
    run: Path | None = Field(default=None, description="keep all the runs in this folder; else a temporary one is used and removed")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


@dataclass(frozen=True)
class Ended:
    """How a run ended: the hash of everything that its artifact's weights and figures hold, and its last step."""

    bits: str
    steps: int


def build(options: Options) -> Result:
    """Train, kill, resume, compare."""
    if options.run is not None:
        if options.run.exists() and any(options.run.iterdir()):
            raise RunError(str(options.run), "is not empty.", "Choose another folder with --run.")
        options.run.mkdir(parents=True, exist_ok=True)
        return _verify(options, options.run)
    with tempfile.TemporaryDirectory(prefix="multitune-verify-") as folder:
        return _verify(options, Path(folder))


def _verify(options: Options, folder: Path) -> Result:
    as_recipe(options.recipe, options.overrides)  # a mistake in the recipe is told before anything is started
    whole = _finish(_start(options, folder / "whole"), folder / "whole")
    lines, equal = [f"uninterrupted: {whole.steps} steps, {whole.bits[:12]}"], True
    for number in range(options.kills):
        one = folder / f"kill-{number + 1}"
        target, resumed = _killed(options, one, whole.steps, number)
        ended = _finish(_start(options, one), one)
        same = ended.bits == whole.bits
        equal &= same
        word = "the same bits" if same else "OTHER BITS"
        told = f"killed after step {target}, resumed from step {resumed}, ended at {ended.steps}"
        lines.append(f"kill {number + 1}: {told}: {word} ({ended.bits[:12]})")
        print(lines[-1], file=sys.stderr, flush=True)
    return Result(
        ok=equal, figures={"kills": float(options.kills), "equal": float(equal), "steps": float(whole.steps)}, text="\n".join(lines)
    )


def _start(options: Options, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "multitune", "train", str(options.recipe), *options.overrides, "--run", str(folder)]
    command += [word for path in catalog.plugin_files() for word in ("--plugin", str(path))]
    log = (folder.parent / f"{folder.name}.log").open("ab")
    with log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ))


def _finish(process: subprocess.Popen[bytes], folder: Path) -> Ended:
    """Wait for the end and hash what the run left.

    Raises: Fault with the end of its output, if it failed.
    """
    code = process.wait()
    if code != 0:
        log = (folder.parent / f"{folder.name}.log").read_text("utf-8", errors="replace").splitlines()
        raise Fault(f"{folder.name}: the run ended with exit code {code}: {' | '.join(log[-3:])}")
    result = json.loads((folder / "result.json").read_text("utf-8"))
    return Ended(bits=_bits(folder / "artifact", result["figures"]), steps=int(result["figures"]["steps"]))


def _bits(artifact: Path, figures: Mapping[str, float]) -> str:
    """The sha256 over every weight file of the artifact and every figure that is not a time."""
    digest = hashlib.sha256()
    for path in sorted(artifact.rglob("*.safetensors")):
        digest.update(str(path.relative_to(artifact)).encode() + b"\0" + path.read_bytes())
    lasting = {name: value for name, value in figures.items() if not _is_time(name)}
    digest.update(json.dumps(lasting, sort_keys=True).encode())
    return digest.hexdigest()


def _is_time(name: str) -> bool:
    """Whether a figure is a time or a rate (`seconds`, `train/steps_per_second`), or tells what was stored before."""
    return name.startswith(("features/", "teacher/")) or not {"second", "seconds"}.isdisjoint(name.rpartition("/")[2].split("_"))


def _killed(options: Options, folder: Path, steps: int, number: int) -> tuple[int, int]:
    """Kill one run at a random step after its first checkpoint and before its last step; gives that step and the one to resume from.

    Raises: Fault if it never could be killed between the two.
    """
    for attempt in range(ATTEMPTS):
        share = randomness.generator("verify-resume", options.seed, number, attempt).random()
        process = _start(options, folder)
        try:
            step = _wait_and_kill(process, folder, share, steps)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        if step is not None and not (folder / "result.json").exists():
            return step, max(_checkpoints(folder))
        folder = _aside(folder)
    raise Fault(f"the run of {steps} steps could not be killed between its first checkpoint and its last step in {ATTEMPTS} tries")


def _wait_and_kill(process: subprocess.Popen[bytes], folder: Path, share: float, steps: int) -> int | None:
    """SIGKILL once the run has passed `share` of the way from its first checkpoint to its last step; the step it had reached."""
    target = None
    while process.poll() is None:
        saved = _checkpoints(folder)
        if saved and target is None:
            target = min(saved) + int(share * max(0, steps - 1 - min(saved)))
        if target is not None and (reached := _last_step(folder)) >= target:
            process.kill()
            process.wait()
            return reached if reached < steps else None
        time.sleep(POLL_SECONDS)
    return None


def _checkpoints(folder: Path) -> list[int]:
    """Steps of the complete checkpoints of a run."""
    found = (folder / "checkpoints").glob("step-*")
    return [int(path.name.removeprefix("step-")) for path in found if path.name.removeprefix("step-").isdigit()]


def _last_step(folder: Path) -> int:
    """The last step that events.jsonl tells of; 0 where it tells of none yet."""
    path = folder / "events.jsonl"
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 4096))
        lines: Sequence[bytes] = stream.read().split(b"\n")[1:-1]
    for line in reversed(lines):
        if b'"step"' in line:
            return int(json.loads(line)["step"])
    return 0


def _aside(folder: Path) -> Path:
    number = 1
    while (other := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    folder.rename(other)
    return folder
