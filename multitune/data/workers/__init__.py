"""Micro-batches made in this process or in others: the same bits, whichever makes them."""

from multitune.data.workers.held import STEP_BYTES, Held, Shelf, Spill, changed, lights
from multitune.data.workers.memo import Kept, Memo, Ready, Repeats
from multitune.data.workers.pool import Pool
from multitune.data.workers.work import Made, Note, Work, joined, prepared, read_sample, single

__all__ = [
    "STEP_BYTES",
    "Held",
    "Kept",
    "Made",
    "Memo",
    "Note",
    "Pool",
    "Ready",
    "Repeats",
    "Shelf",
    "Spill",
    "Work",
    "changed",
    "joined",
    "lights",
    "prepared",
    "read_sample",
    "single",
]
