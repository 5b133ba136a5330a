"""One compute thread a test process (two run at once), and a cache that is the project's own, not the user's."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MULTITUNE_CACHE", str(Path(__file__).resolve().parent.parent / "build" / "test-cache"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
