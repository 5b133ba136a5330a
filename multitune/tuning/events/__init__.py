"""What a run tells while it goes: `events.jsonl`, the statistics of its steps, and the progress bar."""

from __future__ import annotations

from multitune.tuning.events.bar import Bar
from multitune.tuning.events.statistics import Probe
from multitune.tuning.events.writer import Events, read

__all__ = ["Bar", "Events", "Probe", "read"]
