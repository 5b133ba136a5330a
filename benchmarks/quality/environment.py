"""The peers' packages: laid over our own environment in a folder of the cache, shared between checkouts, named by their pins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from multitune.core.errors import UserError
from multitune.core.store import folder_once

PINS = Path(__file__).resolve().parents[1] / "peers.txt"
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")


def overlay(pins: Path = PINS) -> Path:
    """The folder to put on a peer's path; installed on the first call.

    Raises: UserError if pip cannot install them.
    """
    parts = {"pins": pins.read_text("utf-8"), "python": f"{sys.version_info.major}.{sys.version_info.minor}", "platform": sys.platform}
    return folder_once("peers", parts, lambda folder: _install(folder, pins))


def _install(folder: Path, pins: Path) -> None:
    print(f"installing {', '.join(wanted(pins))}: once, into the cache", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *PIP, "--target", str(folder), "-r", str(pins)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), done.stderr.strip()[-200:])
        remedy = "Let pip reach a package registry (PIP_INDEX_URL names a mirror, PIP_FIND_LINKS a folder of wheels), and run this again."
        raise UserError(f"benchmarks/{pins.name}", f"the peers cannot be installed: {said}.".replace("..", "."), remedy)


def wanted(pins: Path) -> list[str]:
    """The pinned packages."""
    return [line.strip() for line in pins.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
